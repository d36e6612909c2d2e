// Items that the model's table does not have, or has otherwise: in the encoder, in the step, and
// where their embeddings come from.
#include "model/item_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "model/encoder.h"
#include "model/item_projection.h"
#include "model/stepper.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kItems = 40;

// The table's row of one item under another item's number.
class Aliases : public ItemRows {
 public:
  Aliases(const ModelView& view, const std::map<int32_t, int32_t>& to) {
    for (const auto& [item, source] : to) {
      for (int level = 0; level < view.sizes.levels(); ++level) {
        const auto width = static_cast<size_t>(view.sizes.width(level));
        const auto row = view.items[static_cast<size_t>(level)].subspan(
            static_cast<size_t>(source) * width, width);
        rows_[item].insert(rows_[item].end(), row.begin(), row.end());
      }
    }
  }
  const float* RowOf(int32_t item) const override {
    const auto found = rows_.find(item);
    return found == rows_.end() ? nullptr : found->second.data();
  }

 private:
  std::map<int32_t, std::vector<float>> rows_;
};

class ItemRowsTest : public testing::TestWithParam<Mixer> {};

TEST_P(ItemRowsTest, TheEncoderReadsThemInPlaceOfTheTable) {
  const RandomModel model({.sizes = {4, 8, 24},
                           .blocks = 2,
                           .items = kItems,
                           .architecture = {.mixer = GetParam(), .input_scale = 1.5f}});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  const Aliases rows(model.view(), {{kItems + 3, 5}, {7, 9}});
  const std::vector<int32_t> with_rows = {1, kItems + 3, 7, 2, 7};
  const std::vector<int32_t> expected_history = {1, 5, 9, 2, 9};
  std::vector<float> plain(24), expected(24), other(24), z(24);
  const History history(with_rows);
  const History meant(expected_history);
  const std::vector<int32_t> seven = {7};
  ASSERT_TRUE(encoder->Encode({&meant, 1}, 3, expected).ok());
  ASSERT_TRUE(encoder->Encode({&history, 1}, 3, z, &rows).ok());
  EXPECT_EQ(z, expected);
  // Beside histories without them, which see the table.
  const History of_seven(seven);
  ASSERT_TRUE(encoder->Encode({&of_seven, 1}, 3, plain).ok());
  std::vector<EncodeRow> mixed = {{.history = seven, .levels = 3, .z = other},
                                  {.history = with_rows, .levels = 3, .z = z, .item_rows = &rows}};
  for (int order = 0; order < 2; ++order) {
    std::fill(z.begin(), z.end(), 0.0f);
    ASSERT_TRUE(encoder->Encode(mixed, [](size_t, int) { return false; }).ok());
    EXPECT_EQ(z, expected);
    EXPECT_EQ(other, plain);
    std::swap(mixed[0], mixed[1]);
  }
  EXPECT_EQ(encoder->Encode({&history, 1}, 3, z).code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Mixers, ItemRowsTest,
                         testing::Values(Mixer::kLru, Mixer::kGru, Mixer::kAttention));

TEST(ItemRowsStepTest, AStepReadsThemToo) {
  for (const int blocks : {1, 2}) {
    const RandomModel model({.sizes = {4, 8, 24}, .blocks = blocks, .items = kItems});
    const auto encoder = *Encoder::Create(model.view(), nullptr);
    const auto stepper = *Stepper::Create(encoder.get());
    const Aliases rows(model.view(), {{kItems + 3, 5}, {7, 9}});
    const std::vector<int32_t> all = {1, kItems + 3, 7, 2, 7, kItems + 3, 3};
    const std::vector<int32_t> meant = {1, 5, 9, 2, 9, 5, 3};
    SessionState state;
    for (size_t end = 1; end <= all.size(); ++end) {
      const int levels = end % 2 == 0 ? 3 : 1;  // levels lag behind and catch up
      const SessionState before = std::move(state);
      const SessionInput input{.state = &before,
                               .items = History(all).first(end),
                               .end = static_cast<int64_t>(end),
                               .more = {},
                               .levels = levels,
                               .item_rows = &rows};
      SessionOutput output;
      ASSERT_TRUE(stepper->Run({&input, 1}, {&output, 1}).ok());
      state = std::move(output.state);
      const History history = History(meant).first(end);
      std::vector<float> expected(output.z.size());
      ASSERT_TRUE(encoder->Encode({&history, 1}, levels, expected).ok());
      for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(output.z[c], expected[c], 1e-4);
    }
    const SessionInput unknown{.state = nullptr, .items = all, .end = 7, .more = {}, .levels = 1};
    SessionOutput output;
    EXPECT_EQ(stepper->Run({&unknown, 1}, {&output, 1}).code(), absl::StatusCode::kInvalidArgument);
  }
}

ModelInfo TwoModalities() {
  ModelInfo info;
  info.modalities = {{.name = "text", .width = 8, .scaling = "sqrt_width"},
                     {.name = "image", .width = 4, .scaling = "none"}};
  return info;
}

TEST(ItemProjectionTest, IsTheProjectorOnScaledFeatures) {
  const RandomModel model({.sizes = {4, 8, 24}, .items = 5, .feature_width = 12});
  const ModelInfo info = TwoModalities();
  const std::vector<ModalityRow> rows = {{"image", {1, 2, 3, 4}},
                                         {"text", {3, 0, 0, 0, 0, 4, 0, 0}}};
  ASSERT_TRUE(CheckModalityRows(info, rows).ok());
  const std::vector<float> embedding = ProjectItem(model.view(), info, rows);
  ASSERT_EQ(embedding.size(), 24u);
  // Norm 5 becomes sqrt(8).
  const double scale = std::sqrt(8.0) / 5;
  const double features[] = {3 * scale, 0, 0, 0, 0, 4 * scale, 0, 0, 1, 2, 3, 4};
  for (int c = 0; c < 24; ++c) {
    const int level = c < 4 ? 0 : c < 8 ? 1 : 2;
    const LinearLevel& projector = model.view().projector[static_cast<size_t>(level)];
    const auto row = static_cast<size_t>(c - model.view().sizes.begin(level));
    double expected = projector.bias[row];
    for (size_t f = 0; f < 12; ++f) expected += projector.weight[row * 12 + f] * features[f];
    EXPECT_NEAR(embedding[static_cast<size_t>(c)], expected, 1e-5) << c;
  }
  // A modality that is left out counts as zeros.
  const std::vector<ModalityRow> image = {{"image", {1, 2, 3, 4}}};
  const std::vector<ModalityRow> zero_text = {{"image", {1, 2, 3, 4}},
                                              {"text", std::vector<float>(8, 0.0f)}};
  EXPECT_EQ(ProjectItem(model.view(), info, image), ProjectItem(model.view(), info, zero_text));
}

TEST(ItemProjectionTest, NamesWhatIsWrongWithFeatures) {
  const ModelInfo info = TwoModalities();
  const auto message = [&](std::vector<ModalityRow> rows) {
    const absl::Status status = CheckModalityRows(info, rows);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({{"sound", {1}}}),
              HasSubstr("\"sound\" is not one of this model's: text (8 values), image (4 values)"));
  EXPECT_THAT(message({{"image", {1, 2}}}),
              HasSubstr("\"image\" has 2 values; this model's has 4"));
  EXPECT_THAT(message({{"image", {1, 2, 3, 4}}, {"image", {1, 2, 3, 4}}}),
              HasSubstr("\"image\" comes twice"));
  EXPECT_THAT(message({{"image", {1, std::numeric_limits<float>::quiet_NaN(), 3, 4}}}),
              HasSubstr("value 1 of modality \"image\" is nan"));
  EXPECT_THAT(message({{"image", {0, 0, 0, 0}}}), HasSubstr("no feature that is not zero"));
  EXPECT_THAT(message({}), HasSubstr("no feature that is not zero"));
  EXPECT_EQ(CheckModalityRows(ModelInfo(), {}).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nestrec

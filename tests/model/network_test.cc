// The nesting itself: a narrow model IS the first columns of the wide one.
#include "model/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/encoder.h"
#include "model/nested_ops.h"
#include "tests/testing/cycle_dataset.h"

namespace nestrec {
namespace {

using torch::Tensor;

class NetworkTest : public testing::TestWithParam<int> {
 protected:
  NetworkTest()
      : sizes_(*NestedSizes::Create({4, 8, 24, 40})),
        features_(torch::cat({torch::zeros({1, 9}), torch::randn({25, 9})}, 0)),
        network_({.sizes = sizes_, .blocks = GetParam(), .max_len = 6, .feature_width = 9},
                 Random(3)) {
    // B's and C's imaginary parts start at 0: disturb everything, so that every weight matters.
    const torch::NoGradGuard no_grad;
    for (const auto& parameter : network_.parameters().All())
      parameter.tensor->add_(torch::randn_like(*parameter.tensor) * 0.05);
  }

  // The network of the first `levels` levels, with copies of their weights alone.
  Network SubNetwork(int levels) {
    NetworkOptions options = network_.options();
    options.sizes = sizes_.Prefix(levels);
    Network narrow(options, Random(99));
    const torch::NoGradGuard no_grad;
    const int64_t dim = options.sizes.max_dim();
    const int64_t ragged = RaggedWeights(options.sizes);
    const auto source = network_.parameters().All();
    const auto target = narrow.parameters().All();
    for (size_t i = 0; i < source.size(); ++i) {
      // Ragged weights are level after level, so a narrow model's are the first of the wide one's.
      const int64_t rows = target[i].tensor->size(0);
      EXPECT_TRUE(rows == dim || rows == ragged) << target[i].name;
      target[i].tensor->copy_(source[i].tensor->narrow(0, 0, rows));
    }
    return narrow;
  }

  PackedBatch Batch() const {
    PackedBatch batch;
    batch.Append(std::vector<int64_t>{0, 3, 9, 9, 20}, std::vector<int64_t>{3, 9, 9, 20, 1});
    batch.Append(std::vector<int64_t>{0}, std::vector<int64_t>{25});
    batch.Append(std::vector<int64_t>{7, 8, 11, 12, 13, 2},
                 std::vector<int64_t>{8, 11, 12, 13, 2, 4});
    return batch;
  }

  NestedSizes sizes_;
  Tensor features_;
  Network network_;
};

TEST_P(NetworkTest, EverySubModelAloneGivesThePrefixOfTheFullOne) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  const Network::Activations wide = network_.Run(Batch(), features_, false);
  const Tensor& z = wide.z;
  for (int levels = 1; levels <= sizes_.levels(); ++levels) {
    const Network narrow = SubNetwork(levels);
    const int64_t dim = sizes_.end(levels - 1);
    const Tensor narrow_items = narrow.ItemEmbeddings(features_);
    EXPECT_LE((narrow_items - items.narrow(1, 0, dim)).abs().max().item<float>(), 1e-6) << dim;
    const Network::Activations alone = narrow.Run(Batch(), features_, false);
    const Tensor& narrow_z = alone.z;
    for (size_t block = 0; block < wide.h_re.size(); ++block) {
      const Tensor re = alone.h_re[block] - wide.h_re[block].narrow(1, 0, dim);
      const Tensor im = alone.h_im[block] - wide.h_im[block].narrow(1, 0, dim);
      EXPECT_LE(torch::maximum(re.abs().max(), im.abs().max()).item<float>(), 1e-6)
          << "states of block " << block << " at " << dim;
    }
    EXPECT_LE((narrow_z - z.narrow(1, 0, dim)).abs().max().item<float>(), 1e-6) << dim;
    const Tensor scores = torch::mm(narrow_z, narrow_items.t());
    const Tensor prefix_scores = torch::mm(z.narrow(1, 0, dim), items.narrow(1, 0, dim).t());
    EXPECT_LE((scores - prefix_scores).abs().max().item<float>(), 1e-5) << dim;
  }
}

TEST_P(NetworkTest, EncoderEqualsTheNetworkAtEveryPositionAndWidth) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  std::vector<Tensor> item_levels;
  const auto encoder = Encoder::Create(network_.View(items, item_levels), nullptr);
  ASSERT_TRUE(encoder.ok());
  const Tensor z = network_.Forward(Batch(), features_, false);
  // Rows of the packed batch and the histories that end there.
  const std::vector<std::pair<int64_t, std::vector<int32_t>>> cases = {
      {0, {}}, {1, {3}}, {4, {3, 9, 9, 20}}, {5, {}}, {11, {7, 8, 11, 12, 13, 2}}};
  std::vector<History> histories;
  for (const auto& [row, history] : cases) histories.push_back(history);
  for (int levels = 1; levels <= sizes_.levels(); ++levels) {
    const int64_t dim = sizes_.end(levels - 1);
    std::vector<float> encoded(histories.size() * static_cast<size_t>(dim));
    ASSERT_TRUE((*encoder)->Encode(histories, levels, encoded).ok());
    for (size_t i = 0; i < cases.size(); ++i) {
      for (int64_t c = 0; c < dim; ++c) {
        EXPECT_NEAR(encoded[i * static_cast<size_t>(dim) + static_cast<size_t>(c)],
                    z[cases[i].first][c].item<float>(), 2e-6);
      }
    }
  }
}

TEST_P(NetworkTest, EncodedNarrowResultIsTheWideOnesPrefixBitForBit) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  std::vector<Tensor> item_levels;
  const auto encoder = *Encoder::Create(network_.View(items, item_levels), nullptr);
  const std::vector<int32_t> a = {3, 9, 9, 20, 1, 1, 17, 25, 4};  // longer than max_len
  const std::vector<int32_t> b = {5};
  const std::vector<History> histories = {a, b, History()};
  std::vector<float> wide(histories.size() * 40);
  ASSERT_TRUE(encoder->Encode(histories, 4, wide).ok());
  for (int levels = 1; levels <= 4; ++levels) {
    const size_t dim = static_cast<size_t>(sizes_.end(levels - 1));
    std::vector<float> narrow(histories.size() * dim);
    ASSERT_TRUE(encoder->Encode(histories, levels, narrow).ok());
    for (size_t h = 0; h < histories.size(); ++h) {
      for (size_t c = 0; c < dim; ++c)
        ASSERT_EQ(narrow[h * dim + c], wide[h * 40 + c]) << h << " " << c;
    }
  }
  // Only the last max_len items count.
  const std::vector<History> last = {History(a).last(6)};
  std::vector<float> z(40);
  ASSERT_TRUE(encoder->Encode(last, 4, z).ok());
  const std::vector<History> whole = {a};
  std::vector<float> z_whole(40);
  ASSERT_TRUE(encoder->Encode(whole, 4, z_whole).ok());
  EXPECT_EQ(z, z_whole);
}

TEST_P(NetworkTest, EncoderRefusesWhatItCannotEncode) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  std::vector<Tensor> item_levels;
  const auto encoder = *Encoder::Create(network_.View(items, item_levels), nullptr);
  std::vector<float> z(40);
  const auto encode = [&](std::vector<int32_t> history, int levels, std::span<float> out) {
    const std::vector<History> histories = {history};
    return std::string(encoder->Encode(histories, levels, out).message());
  };
  EXPECT_THAT(encode({26}, 4, z), testing::HasSubstr("26 is outside 1..25"));
  EXPECT_THAT(encode({0}, 4, z), testing::HasSubstr("0 is outside 1..25"));
  EXPECT_THAT(encode({-1}, 4, z), testing::HasSubstr("outside"));
  EXPECT_THAT(encode({1}, 5, z), testing::HasSubstr("levels: 5"));
  EXPECT_THAT(encode({1}, 0, z), testing::HasSubstr("levels: 0"));
  EXPECT_THAT(encode({1}, 4, std::span(z).first(39)), testing::HasSubstr("40 are needed"));
}

INSTANTIATE_TEST_SUITE_P(Blocks, NetworkTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace nestrec

// The nesting itself: a narrow model IS the first columns of the wide one.
#include "model/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/encoder.h"
#include "model/item_sample.h"
#include "model/nested_ops.h"
#include "tests/testing/cycle_dataset.h"

namespace nestrec {
namespace {

using torch::Tensor;

struct Case {
  Architecture architecture;
  int blocks = 1;
  bool content = true;   // features
  bool vectors = false;  // learned vectors per item
};

class NetworkTest : public testing::TestWithParam<Case> {
 protected:
  NetworkTest()
      : sizes_(*NestedSizes::Create({4, 8, 24, 40})),
        features_(Features(GetParam().content ? 9 : 0)),
        network_({.sizes = sizes_,
                  .blocks = GetParam().blocks,
                  .max_len = 6,
                  .feature_width = features_.size(1),
                  .architecture = GetParam().architecture,
                  .item_residual = GetParam().vectors,
                  .items = 25},
                 Random(3)) {
    // B's and C's imaginary parts start at 0: disturb everything, so that every weight matters.
    const torch::NoGradGuard no_grad;
    for (const auto& parameter : network_.parameters().All())
      parameter.tensor->add_(torch::randn_like(*parameter.tensor) * 0.05);
  }

  static Tensor Features(int64_t width) {
    torch::manual_seed(11);
    return torch::cat({torch::zeros({1, width}), torch::randn({25, width})}, 0);
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
      // One vector per item or place is cut to its first columns. Ragged weights are level after
      // level, so a narrow model's are the first of the wide one's; so are projector and biases.
      const bool is_rows = target[i].name == "item_residual" || target[i].name == "positions";
      const int64_t count = target[i].tensor->size(is_rows ? 1 : 0);
      EXPECT_TRUE(count == dim || count == ragged) << target[i].name;
      target[i].tensor->copy_(source[i].tensor->narrow(is_rows ? 1 : 0, 0, count));
    }
    return narrow;
  }

  // The network with other options and copies of its weights.
  Network Copy(const NetworkOptions& options) {
    Network copy(options, Random(3));
    const torch::NoGradGuard no_grad;
    const auto source = network_.parameters().All();
    const auto target = copy.parameters().All();
    for (size_t i = 0; i < source.size(); ++i) target[i].tensor->copy_(*source[i].tensor);
    return copy;
  }

  // The batch's loss, whose gradients are then in the parameters.
  double Backward(Network& network) const {
    const Tensor loss = network.Loss(Batch(), network.Forward(Batch(), features_, true), features_);
    loss.backward();
    return loss.item<double>();
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
    for (size_t block = 0; block < wide.states.size(); ++block) {
      ASSERT_EQ(alone.states[block].size(), wide.states[block].size());
      for (size_t part = 0; part < wide.states[block].size(); ++part) {
        const Tensor difference =
            alone.states[block][part] - wide.states[block][part].narrow(1, 0, dim);
        EXPECT_LE(difference.abs().max().item<float>(), 1e-6)
            << "states of block " << block << " at " << dim;
      }
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

TEST_P(NetworkTest, APackedBatchGivesWhatItsSequencesGiveOneByOne) {
  const torch::NoGradGuard no_grad;
  const PackedBatch batch = Batch();
  const Tensor together = network_.Forward(batch, features_, false);
  for (size_t run = 0; run + 1 < batch.run_begins.size(); ++run) {
    const auto begin = batch.tokens.begin() + batch.run_begins[run];
    const auto end = batch.tokens.begin() + batch.run_begins[run + 1];
    PackedBatch alone;
    alone.Append(std::vector<int64_t>(begin, end), std::vector<int64_t>(end - begin, 1));
    const Tensor z = network_.Forward(alone, features_, false);
    const Tensor difference = z - together.narrow(0, batch.run_begins[run], end - begin);
    EXPECT_LE(difference.abs().max().item<float>(), 2e-6) << "run " << run;
  }
}

TEST_P(NetworkTest, LibtorchsOperationsGiveTheSameLossAndGradients) {
  NetworkOptions options = network_.options();
  options.portable = true;
  Network portable = Copy(options);
  const auto source = network_.parameters().All();
  const auto target = portable.parameters().All();
  const double loss = Backward(network_);
  EXPECT_NEAR(Backward(portable), loss, 1e-5 * loss);
  for (size_t i = 0; i < source.size(); ++i) {
    const Tensor expected = source[i].tensor->grad();
    const Tensor actual = target[i].tensor->grad();
    // The projector's bias adds the same to all scores: its gradient comes from the tokens alone.
    ASSERT_TRUE(expected.defined() && actual.defined()) << source[i].name;
    EXPECT_LE((actual - expected).abs().max().item<double>(),
              2e-5 * (1e-3 + expected.abs().max().item<double>()))
        << source[i].name;
  }
}

TEST_P(NetworkTest, RoundedOperandsGiveAboutTheSameLossAndGradients) {
  if (!HasBfloat16()) GTEST_SKIP() << "this processor does not multiply bfloat16";
  NetworkOptions options = network_.options();
  options.precision = Precision::kBfloat16;
  Network rounded = Copy(options);
  const auto source = network_.parameters().All();
  const auto target = rounded.parameters().All();
  const double loss = Backward(network_);
  EXPECT_NEAR(Backward(rounded), loss, 2e-2 * loss);
  double dot = 0;
  double squares = 0;
  double rounded_squares = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const Tensor a = source[i].tensor->grad().flatten();
    const Tensor b = target[i].tensor->grad().flatten();
    dot += a.dot(b).item<double>();
    squares += a.dot(a).item<double>();
    rounded_squares += b.dot(b).item<double>();
  }
  EXPECT_GT(dot / std::sqrt(squares * rounded_squares), 0.99);
}

TEST_P(NetworkTest, EveryParameterHasAGradient) {
  network_.Loss(Batch(), network_.Forward(Batch(), features_, true), features_).backward();
  for (const auto& parameter : network_.parameters().All()) {
    ASSERT_TRUE(parameter.tensor->grad().defined()) << parameter.name;
    EXPECT_GT(parameter.tensor->grad().abs().max().item<float>(), 0) << parameter.name;
  }
}

TEST_P(NetworkTest, ASampledLossLearnsWhateverItemsAreMadeOf) {
  const PackedBatch batch = Batch();
  ItemSample sample;
  sample.items = {1, 2, 3, 4, 9, 11, 12, 13, 8, 20, 25, 17};
  sample.offsets.assign(sample.items.size(), 0.5);
  for (const int64_t label : batch.labels) {
    const auto at = std::find(sample.items.begin(), sample.items.end(), label);
    ASSERT_NE(at, sample.items.end());
    sample.labels.push_back(at - sample.items.begin());
  }
  const Tensor z = network_.Forward(batch, features_, false);
  const Tensor loss = network_.Loss(batch, z, features_, sample);
  // Equal offsets change no softmax: the plain loss over those items.
  const Tensor items = network_.ItemEmbeddings(features_).index_select(
      0, torch::tensor(sample.items, torch::kInt64));
  double expected = 0;
  for (int level = 0; level < sizes_.levels(); ++level) {
    const int64_t dim = sizes_.end(level);
    const Tensor logits = torch::mm(z.narrow(1, 0, dim), items.narrow(1, 0, dim).t());
    expected +=
        torch::nn::functional::cross_entropy(logits, torch::tensor(sample.labels, torch::kInt64))
            .item<double>() /
        sizes_.levels();
  }
  EXPECT_NEAR(loss.item<double>(), expected, 1e-4 * expected);
}

TEST(NetworkPositionsTest, ASequenceLongerThanMaxLenIsAnError) {
  const Network network({.sizes = *NestedSizes::Create({4, 8}),
                         .max_len = 3,
                         .architecture = {.mixer = Mixer::kAttention},
                         .item_residual = true,
                         .items = 9},
                        Random(3));
  PackedBatch batch;
  batch.Append(std::vector<int64_t>{1, 2, 3, 4}, std::vector<int64_t>{2, 3, 4, 5});
  EXPECT_THROW(network.Forward(batch, torch::zeros({10, 0}), false), c10::Error);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int blocks : {1, 2, 3}) {
    for (const Mixer mixer : {Mixer::kLru, Mixer::kGru, Mixer::kAttention}) {
      cases.push_back({.architecture = {.mixer = mixer, .head_width = 8}, .blocks = blocks});
    }
  }
  const Architecture sasrec = {.mixer = Mixer::kAttention,
                               .head_width = 16,
                               .feed_forward = FeedForward::kRelu,
                               .final_norm = true,
                               .input_scale = 6.0f};
  cases.push_back({.architecture = sasrec, .blocks = 2, .content = false, .vectors = true});
  cases.push_back({.architecture = {}, .blocks = 1, .content = false, .vectors = true});
  cases.push_back({.architecture = {.mixer = Mixer::kGru}, .blocks = 1, .vectors = true});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Architectures, NetworkTest, testing::ValuesIn(Cases()));

}  // namespace
}  // namespace nestrec

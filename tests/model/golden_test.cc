// Parity with the authors' PyTorch code, see tests/golden/README.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/safetensors.h"
#include "model/encoder.h"
#include "model/nested_ops.h"
#include "model/network.h"
#include "model/optimizer.h"

namespace nestrec {
namespace {

using torch::Tensor;

std::string GoldenPath() {
  const char* path = std::getenv("NESTREC_GOLDEN");
  return path != nullptr && *path != '\0'
             ? path
             : absl::StrCat(NESTREC_SOURCE_DIR, "/tests/golden/fmrlrec_tiny.safetensors");
}

class Golden {
 public:
  Golden() : file_(*SafetensorsFile::Open(GoldenPath(), /*require_checksums=*/false)) {}

  Tensor Get(absl::string_view name) const {
    const TensorInfo* info = file_->Find(name);
    if (info == nullptr) throw std::runtime_error(absl::StrCat("golden file: no tensor ", name));
    const auto type = info->dtype == DType::kI64 ? torch::kInt64 : torch::kFloat32;
    return torch::from_blob(const_cast<std::byte*>(file_->bytes(*info).data()), info->shape, type)
        .clone();
  }
  std::string Metadata(const std::string& key) const { return file_->metadata().at(key); }
  double Number(const std::string& key) const {
    // "0.01 on all but biases" begins with the number.
    double value = 0;
    const std::vector<std::string> words = absl::StrSplit(Metadata(key), ' ');
    if (!absl::SimpleAtod(words[0], &value))
      throw std::runtime_error(absl::StrCat("golden file: metadata ", key));
    return value;
  }
  // Names below `prefix`, prefix taken off, in the order of the file.
  std::vector<std::string> Names(absl::string_view prefix) const {
    std::vector<std::string> names;
    for (const TensorInfo& tensor : file_->tensors()) {
      absl::string_view name = tensor.name;
      if (absl::ConsumePrefix(&name, prefix)) names.emplace_back(name);
    }
    return names;
  }
  // [items + 1, F], row 0 zeros.
  Tensor Features() const {
    std::vector<Tensor> modalities;
    for (const std::string& name : Names("input/features."))
      modalities.push_back(Get("input/features." + name));
    const Tensor features = torch::cat(modalities, 1);
    return torch::cat({torch::zeros({1, features.size(1)}), features}, 0);
  }
  PackedBatch Batch(int64_t index) const {
    const Tensor tokens = Get("input/tokens")[index].contiguous();
    const Tensor labels = Get("input/labels")[index].contiguous();
    PackedBatch batch;
    for (int64_t row = 0; row < tokens.size(0); ++row) {
      const size_t length = static_cast<size_t>(tokens.size(1));
      batch.Append({tokens[row].data_ptr<int64_t>(), length},
                   {labels[row].data_ptr<int64_t>(), length});
    }
    return batch;
  }

 private:
  std::shared_ptr<const SafetensorsFile> file_;
};

// The parts of `parameters` (or of their gradients) that the golden tensor `name` stands for: its
// rows, for nu_theta_gamma_log, or one tensor. Empty for the imaginary bias of C, which never
// reaches the output.
std::vector<Tensor> PartsOf(NetworkParameters& parameters, const NestedSizes& sizes,
                            const std::string& name, bool gradient) {
  const auto get = [gradient](const Tensor& tensor) {
    return gradient ? tensor.grad() : tensor.detach();
  };
  if (name == "projector.weight") return {get(parameters.projector)};
  if (name == "projector.bias") return {get(parameters.projector_bias)};
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  BlockParameters& b = parameters.blocks.at(static_cast<size_t>(std::stoi(parts[1])));
  if (parts[3] == "nu_theta_gamma_log")
    return {get(b.lru.nu_log), get(b.lru.theta_log), get(b.lru.gamma_log)};
  const bool is_norm = absl::StartsWith(parts[2], "norm");
  const int level = std::stoi(parts[is_norm ? 3 : 4].substr(5));
  const bool is_bias = parts[is_norm ? 4 : 5] == "bias";
  const std::string layer =
      is_norm ? parts[2] : absl::StrCat(parts[3], parts.size() > 6 ? parts[6] : "");
  const std::map<std::string, std::pair<Tensor*, Tensor*>> layers = {
      {"norm1", {&b.norm1_scale, &b.norm1_shift}},
      {"norm2", {&b.norm2_scale, &b.norm2_shift}},
      {"Bre", {&b.lru.b_re, &b.lru.b_re_bias}},
      {"Bim", {&b.lru.b_im, &b.lru.b_im_bias}},
      {"Cre", {&b.lru.c_re, &b.lru.c_re_bias}},
      {"Cim", {&b.lru.c_im, nullptr}},
      {"Wg", {&b.wg, &b.wg_bias}},
      {"W1", {&b.w1, &b.w1_bias}},
      {"W2", {&b.w2, &b.w2_bias}},
  };
  const auto [weight, bias] = layers.at(layer);
  if (is_bias && bias == nullptr) return {};
  if (is_norm || is_bias) {
    return {get(is_bias ? *bias : *weight).narrow(0, sizes.begin(level), sizes.width(level))};
  }
  return {RaggedLevel(get(*weight), sizes, level)};
}

class GoldenTest : public testing::Test {
 protected:
  GoldenTest()
      : sizes_(*NestedSizes::Parse(golden_.Metadata("sizes"))),
        features_(golden_.Features()),
        network_(NetworkOptions{.sizes = sizes_,
                                .blocks = std::stoi(golden_.Metadata("blocks")),
                                .max_len = static_cast<int>(golden_.Get("input/tokens").size(2)),
                                .feature_width = features_.size(1)},
                 Random(1)) {
    const torch::NoGradGuard no_grad;
    for (const std::string& name : golden_.Names("weight/")) {
      const Tensor value = golden_.Get("weight/" + name);
      std::vector<Tensor> parts = PartsOf(network_.parameters(), sizes_, name, /*gradient=*/false);
      for (size_t i = 0; i < parts.size(); ++i)
        parts[i].copy_(parts.size() == 1 ? value : value[static_cast<int64_t>(i)]);
    }
  }

  // max|a - b| <= relative * max|b| + absolute
  static void ExpectClose(const Tensor& actual, const Tensor& expected, const std::string& what,
                          double relative = 1e-4, double absolute = 1e-7) {
    ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
    const double error = (actual - expected).abs().max().item<double>();
    const double bound = relative * expected.abs().max().item<double>() + absolute;
    EXPECT_LE(error, bound) << what;
  }

  // z at every position of the padded batch: padding positions without a label are not computed.
  void ExpectPaddedZ(const Tensor& z, const Tensor& tokens, const Tensor& labels,
                     const Tensor& expected) {
    int64_t at = 0;
    for (int64_t row = 0; row < tokens.size(0); ++row) {
      for (int64_t t = 0; t < tokens.size(1); ++t) {
        if (tokens[row][t].item<int64_t>() == 0 && labels[row][t].item<int64_t>() == 0) continue;
        ExpectClose(z[at++], expected[row][t], absl::StrCat("z of row ", row, ", position ", t));
      }
    }
    EXPECT_EQ(at, z.size(0));
  }

  Golden golden_;
  NestedSizes sizes_;
  Tensor features_;
  Network network_;
};

TEST_F(GoldenTest, ForwardPassMatchesTheReference) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  ExpectClose(items, golden_.Get("output/item_embeddings"), "item embeddings");
  const PackedBatch batch = golden_.Batch(0);
  const Tensor z = network_.Forward(batch, features_, /*training=*/true);
  const Tensor tokens = golden_.Get("input/tokens")[0];
  const Tensor labels = golden_.Get("input/labels")[0];
  ExpectPaddedZ(z, tokens, labels, golden_.Get("output/z"));

  // The last position of each row is the last of its run.
  const Tensor scores = golden_.Get("output/last_scores");
  const Tensor last_z = golden_.Get("output/z").select(1, tokens.size(1) - 1);
  for (int level = 0; level < sizes_.levels(); ++level) {
    const int64_t end = sizes_.end(level);
    ExpectClose(torch::matmul(last_z.narrow(1, 0, end), items.narrow(1, 0, end).t()), scores[level],
                absl::StrCat("last scores at ", end));
  }
}

TEST_F(GoldenTest, EncoderMatchesTheReference) {
  const torch::NoGradGuard no_grad;
  const Tensor items = network_.ItemEmbeddings(features_);
  std::vector<Tensor> item_levels;
  const auto encoder = Encoder::Create(network_.View(items, item_levels), nullptr);
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const Tensor tokens = golden_.Get("input/tokens")[0];
  std::vector<std::vector<int32_t>> rows;
  for (int64_t row = 0; row < tokens.size(0); ++row) {
    std::vector<int32_t>& items_of_row = rows.emplace_back();
    for (int64_t t = 0; t < tokens.size(1); ++t) {
      if (const int64_t token = tokens[row][t].item<int64_t>(); token != 0)
        items_of_row.push_back(static_cast<int32_t>(token));
    }
  }
  const std::vector<History> histories(rows.begin(), rows.end());
  for (int levels = 1; levels <= sizes_.levels(); ++levels) {
    const int64_t dim = sizes_.end(levels - 1);
    Tensor z = torch::empty({tokens.size(0), dim});
    ASSERT_TRUE(
        (*encoder)
            ->Encode(histories, levels, {z.data_ptr<float>(), static_cast<size_t>(z.numel())})
            .ok());
    ExpectClose(z, golden_.Get("output/z").select(1, tokens.size(1) - 1).narrow(1, 0, dim),
                absl::StrCat("z at ", dim));
  }
}

TEST_F(GoldenTest, LossAndEveryGradientMatchTheReference) {
  const PackedBatch batch = golden_.Batch(0);
  const Tensor z = network_.Forward(batch, features_, /*training=*/true);
  const Tensor loss = network_.Loss(batch, z, features_);
  ExpectClose(loss.detach().view({1}), golden_.Get("output/loss"), "loss");
  loss.backward();
  int compared = 0;
  for (const std::string& name : golden_.Names("grad/")) {
    const Tensor expected = golden_.Get("grad/" + name);
    const std::vector<Tensor> parts =
        PartsOf(network_.parameters(), sizes_, name, /*gradient=*/true);
    if (parts.empty()) {
      ExpectClose(torch::zeros_like(expected), expected, name);
    } else {
      ExpectClose(parts.size() == 1 ? parts[0] : torch::stack(parts), expected, name);
    }
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

TEST_F(GoldenTest, TrainingTraceMatchesTheReference) {
  Optimizer optimizer(network_.parameters(), {.weight_decay = golden_.Number("weight_decay"),
                                              .epsilon = golden_.Number("eps"),
                                              .clip_norm = golden_.Number("clip")});
  const Tensor expected = golden_.Get("output/training_losses");
  const int64_t batches = golden_.Get("input/tokens").size(0);
  for (int64_t step = 0; step < expected.size(0); ++step) {
    const PackedBatch batch = golden_.Batch(step % batches);
    const Tensor loss = network_.Loss(batch, network_.Forward(batch, features_, true), features_);
    const double reference = expected[step].item<double>();
    EXPECT_NEAR(loss.item<double>(), reference, 1e-3 * std::abs(reference)) << "step " << step;
    optimizer.ZeroGradients();
    loss.backward();
    optimizer.Step(golden_.Number("lr"));
  }
  for (const std::string& name : golden_.Names("trained/")) {
    const Tensor value = golden_.Get("trained/" + name);
    const std::vector<Tensor> parts =
        PartsOf(network_.parameters(), sizes_, name, /*gradient=*/false);
    if (parts.empty()) continue;
    ExpectClose(parts.size() == 1 ? parts[0] : torch::stack(parts), value, name, /*relative=*/1e-3,
                /*absolute=*/1e-6);
  }
}

}  // namespace
}  // namespace nestrec

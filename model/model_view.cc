#include "model/model_view.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace nestrec {

namespace {

// The tensors of one level, one after the other; after the first error, none.
class LevelVisit {
 public:
  LevelVisit(const NestedSizes& sizes, int level, TensorVisitor visit)
      : width_(sizes.width(level)),
        end_(sizes.end(level)),
        suffix_(absl::StrCat(".level", level)),
        visit_(visit) {}

  void Tensor(const std::string& name, std::vector<int64_t> shape, std::span<const float>& values) {
    if (status_.ok()) status_ = visit_(name, shape, values);
  }
  // "name.levelJ" [w_j]
  void Vector(absl::string_view name, std::span<const float>& values) {
    Tensor(absl::StrCat(name, suffix_), {width_}, values);
  }
  // "name.levelJ" [rows, w_j]
  void Rows(absl::string_view name, int64_t rows, std::span<const float>& values) {
    Tensor(absl::StrCat(name, suffix_), {rows, width_}, values);
  }
  // "name.levelJ.weight" [w_j, columns] and, of most layers, "name.levelJ.bias" [w_j]
  void Layer(absl::string_view name, int64_t columns, LinearLevel& layer, bool has_bias = true) {
    Tensor(absl::StrCat(name, suffix_, ".weight"), {width_, columns}, layer.weight);
    if (has_bias) Tensor(absl::StrCat(name, suffix_, ".bias"), {width_}, layer.bias);
  }
  void Nested(absl::string_view name, LinearLevel& layer, bool has_bias = true) {
    Layer(name, end_, layer, has_bias);
  }
  const absl::Status& status() const { return status_; }

 private:
  int64_t width_, end_;
  std::string suffix_;
  TensorVisitor visit_;
  absl::Status status_;
};

void VisitBlock(const std::string& block, const Architecture& architecture, BlockLevel& weights,
                LevelVisit& visit) {
  visit.Vector(block + "norm1.scale", weights.norm1_scale);
  visit.Vector(block + "norm1.shift", weights.norm1_shift);
  if (architecture.mixer == Mixer::kLru) {
    visit.Vector(block + "lru.nu_log", weights.lru.nu_log);
    visit.Vector(block + "lru.theta_log", weights.lru.theta_log);
    visit.Vector(block + "lru.gamma_log", weights.lru.gamma_log);
  }
  visit.Vector(block + "norm2.scale", weights.norm2_scale);
  visit.Vector(block + "norm2.shift", weights.norm2_shift);
  switch (architecture.mixer) {
    case Mixer::kLru:
      visit.Nested(block + "lru.B.re", weights.lru.b_re);
      visit.Nested(block + "lru.B.im", weights.lru.b_im);
      visit.Nested(block + "lru.C.re", weights.lru.c_re);
      visit.Nested(block + "lru.C.im", weights.lru.c_im, /*has_bias=*/false);
      break;
    case Mixer::kGru:
      visit.Nested(block + "gru.Wr", weights.gru.wr);
      visit.Nested(block + "gru.Wu", weights.gru.wu);
      visit.Nested(block + "gru.Wc", weights.gru.wc);
      visit.Nested(block + "gru.Ur", weights.gru.ur, /*has_bias=*/false);
      visit.Nested(block + "gru.Uu", weights.gru.uu, /*has_bias=*/false);
      visit.Nested(block + "gru.Uc", weights.gru.uc, /*has_bias=*/false);
      visit.Nested(block + "gru.O", weights.gru.o);
      break;
    case Mixer::kAttention:
      visit.Nested(block + "attention.Q", weights.attention.q);
      visit.Nested(block + "attention.K", weights.attention.k);
      visit.Nested(block + "attention.V", weights.attention.v);
      visit.Nested(block + "attention.O", weights.attention.o);
      break;
  }
  if (architecture.feed_forward == FeedForward::kGated) visit.Nested(block + "ffn.Wg", weights.wg);
  visit.Nested(block + "ffn.W1", weights.w1);
  visit.Nested(block + "ffn.W2", weights.w2);
}

}  // namespace

ModelView EmptyView(NestedSizes sizes, int blocks, int64_t item_rows, int max_len,
                    const Architecture& architecture) {
  const size_t levels = static_cast<size_t>(sizes.levels());
  return ModelView{.sizes = std::move(sizes),
                   .max_len = max_len,
                   .architecture = architecture,
                   .item_rows = item_rows,
                   .items = std::vector<std::span<const float>>(levels),
                   .projector = std::vector<LinearLevel>(levels),
                   .positions = std::vector<std::span<const float>>(levels),
                   .blocks = std::vector<std::vector<BlockLevel>>(static_cast<size_t>(blocks),
                                                                  std::vector<BlockLevel>(levels)),
                   .final_norm = std::vector<NormLevel>(levels)};
}

int64_t FeatureWidth(const ModelInfo& info) {
  int64_t width = 0;
  for (const ModalityInfo& modality : info.modalities) width += modality.width;
  return width;
}

std::optional<int> LevelOfTensor(absl::string_view name) {
  constexpr absl::string_view kMark = ".level";
  const size_t at = name.find(kMark);
  if (at == absl::string_view::npos) return std::nullopt;
  absl::string_view digits = name.substr(at + kMark.size());
  digits = digits.substr(0, digits.find('.'));
  int level = 0;
  if (!absl::SimpleAtoi(digits, &level)) return std::nullopt;
  return level;
}

absl::Status VisitLevel(ModelView& view, int64_t feature_width, int level, TensorVisitor visitor) {
  const size_t at = static_cast<size_t>(level);
  LevelVisit visit(view.sizes, level, visitor);
  if (feature_width > 0) visit.Layer("projector", feature_width, view.projector[at]);
  if (view.architecture.has_positions()) visit.Rows("positions", view.max_len, view.positions[at]);
  for (size_t b = 0; b < view.blocks.size(); ++b) {
    VisitBlock(absl::StrCat("block.", b, "."), view.architecture, view.blocks[b][at], visit);
  }
  if (view.architecture.final_norm) {
    visit.Vector("final_norm.scale", view.final_norm[at].scale);
    visit.Vector("final_norm.shift", view.final_norm[at].shift);
  }
  visit.Rows("items", view.item_rows, view.items[at]);
  return visit.status();
}

}  // namespace nestrec

#include "model/model_view.h"

#include "absl/strings/numbers.h"

namespace nestrec {

ModelView EmptyView(NestedSizes sizes, int blocks, int64_t item_rows, int max_len) {
  const size_t levels = static_cast<size_t>(sizes.levels());
  return ModelView{.sizes = std::move(sizes),
                   .max_len = max_len,
                   .item_rows = item_rows,
                   .items = std::vector<std::span<const float>>(levels),
                   .projector = std::vector<LinearLevel>(levels),
                   .blocks = std::vector<std::vector<BlockLevel>>(static_cast<size_t>(blocks),
                                                                  std::vector<BlockLevel>(levels))};
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

}  // namespace nestrec

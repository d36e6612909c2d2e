#include "model/nested_softmax.h"

#include <algorithm>
#include <utility>

#include "model/nested_softmax_pass.h"

namespace nestrec {
namespace {

// More positions at a time would make the products little faster, but the scratch larger.
constexpr int64_t kMostColumns = 256;
constexpr int64_t kMostColumnsByItemBlocks = 512;
constexpr int64_t kFewestRows = 256;

}  // namespace

template <typename T>
NestedSoftmax<T>::NestedSoftmax(NestedSoftmaxOptions options)
    : options_(std::move(options)), scratch_(std::make_unique<Scratch>()) {}

template <typename T>
NestedSoftmax<T>::NestedSoftmax(NestedSoftmax&&) noexcept = default;
template <typename T>
NestedSoftmax<T>& NestedSoftmax<T>::operator=(NestedSoftmax&&) noexcept = default;
template <typename T>
NestedSoftmax<T>::~NestedSoftmax() = default;

template <typename T>
bool NestedSoftmax<T>::ByFeatures(int level, int64_t positions, int64_t feature_width) const {
  const int64_t width = options_.sizes.width(level);
  return 2 * positions * feature_width < width * (2 * feature_width + 3 * positions);
}

template <typename T>
double NestedSoftmax<T>::Compute(const Items& items, const T* z, std::span<const int64_t> labels,
                                 const Gradients& gradients) {
  const int64_t positions = static_cast<int64_t>(labels.size());
  const int levels = options_.sizes.levels();
  Plan plan;
  for (int level = 0; level < levels; ++level) {
    const bool by_features = ByFeatures(level, positions, items.feature_width);
    plan.table_column.push_back(by_features ? Plan::kByFeatures : plan.table_width);
    plan.feature_slot.push_back(plan.feature_slots);
    if (level == 0 || by_features) ++plan.buffers;
    plan.buffer.push_back(plan.buffers - 1);
    if (by_features) {
      ++plan.feature_slots;
    } else {
      plan.table_width += options_.sizes.width(level);
    }
  }
  plan.distil = options_.distillation > 0 && levels > 1;
  plan.own_softmax = !plan.by_features(levels - 1) && levels > 1;
  const int64_t values = options_.memory_bytes / static_cast<int64_t>(sizeof(T));
  const auto row_values = [&](int64_t columns) {
    return (plan.buffers + (plan.own_softmax ? 1 : 0) + (plan.distil ? 1 : 0)) * columns +
           2 * plan.table_width;
  };
  const int64_t padded = RoundUp(positions, kSoftmaxColumns);
  // Never the whole [items, positions] at once, unless it is small.
  const int64_t blocks = std::max<int64_t>(padded > kMostColumns / 4 ? 2 : 1,
                                           (padded + kMostColumns - 1) / kMostColumns);
  plan.columns = RoundUp((positions + blocks - 1) / blocks, kSoftmaxColumns);  // even blocks
  while (plan.columns > 2 * kSoftmaxColumns && items.count * row_values(plan.columns) > values) {
    plan.columns = RoundUp(plan.columns / 2, kSoftmaxColumns);
  }
  plan.rows = items.count;
  if (items.count * row_values(plan.columns) > values) {
    plan.one_pass = false;
    plan.columns = std::min(padded, kMostColumnsByItemBlocks);
    // Level 0 always counts a buffer, which the analyzer cannot know.
    // NOLINTNEXTLINE(clang-analyzer-core.DivideZero)
    plan.rows = std::min(items.count, std::max(kFewestRows, values / row_values(plan.columns)));
  }

  scratch_->Reserve(plan, options_.sizes.max_dim(), items.feature_width);
  flops_ = 0;
  std::fill_n(gradients.projector, options_.sizes.max_dim() * items.feature_width, T{0});
  double loss = 0;
  for (int64_t begin = 0; begin < positions; begin += plan.columns) {
    Pass pass(*this, plan, *scratch_, items, gradients, z, labels, begin);
    loss += pass.Run();
    if (plan.one_pass && begin + plan.columns >= positions) pass.TableGradients(0, items.count);
  }
  scratch_->FreeTables();
  return loss;
}

template class NestedSoftmax<float>;
template class NestedSoftmax<double>;

}  // namespace nestrec

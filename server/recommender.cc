#include "server/recommender.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "base/status_macros.h"
#include "index/diversity.h"
#include "index/item_filter.h"
#include "index/overlaid_index.h"
#include "index/predicate.h"

namespace nestrec {
namespace {

// What the query lets come back; nothing where that is everything.
absl::StatusOr<std::optional<ItemFilter>> FilterOf(const RecommendQuery& query,
                                                   const AttributeView& attributes) {
  const int64_t items = attributes.items();
  std::optional<ItemFilter> filter;
  const auto narrow = [&](ItemFilter by) {
    filter = filter.has_value() ? filter->And(by) : std::move(by);
  };
  if (query.only.has_value()) {
    narrow(ItemFilter::Allowing(items, *query.only));
  }
  if (query.filter.has_value()) {
    absl::StatusOr<ItemSet> matching = Matching(*query.filter, attributes);
    // The filter was good when the request came; the last item that had its field is gone since.
    if (absl::IsInvalidArgument(matching.status())) matching = ItemSet();
    NESTREC_RETURN_IF_ERROR(matching.status());
    narrow(ItemFilter::Allowing(items, *matching));
  }
  if (!query.excluded.empty()) {
    narrow(ItemFilter::Excluding(items, query.excluded));
  }
  return filter;
}

}  // namespace

void CopyItemVector(const Snapshot& snapshot, const ItemView& items, int32_t item, int levels,
                    std::span<float> z) {
  if (const float* row = items.RowOf(item)) {
    std::copy_n(row, snapshot.sizes().end(levels - 1), z.begin());
    return;
  }
  const ModelView& view = snapshot.checkpoint().view();
  auto out = z.begin();
  for (int level = 0; level < levels; ++level) {
    const auto width = static_cast<size_t>(view.sizes.width(level));
    const auto part =
        view.items[static_cast<size_t>(level)].subspan(static_cast<size_t>(item) * width, width);
    out = std::copy(part.begin(), part.end(), out);
  }
}

absl::StatusOr<SearchResult> FindItems(const Snapshot& snapshot, const ItemView& items,
                                       const RecommendQuery& query, const WidthDecision& width,
                                       std::span<const float> z) {
  const AttributeView attributes(snapshot.attributes(), items.attributes());
  NESTREC_ASSIGN_OR_RETURN(const std::optional<ItemFilter> filter, FilterOf(query, attributes));
  const SearchOptions options = {
      .k = query.diversity.has_value() ? query.diversity->candidates : query.k,
      .filter = filter.has_value() ? &*filter : nullptr,
      .min_score = query.min_score};
  const bool similar = query.similar_to.has_value();
  const ItemIndex* index =
      similar ? &snapshot.cosine_index(width.levels) : &snapshot.index(width.dim, width.index);
  std::optional<OverlaidIndex> overlaid;
  if (items.overlay() != nullptr) {
    overlaid.emplace(index, items.overlay(), snapshot.sizes(), width.levels,
                     similar ? Similarity::kCosine : Similarity::kProduct);
    index = &*overlaid;
  }
  NESTREC_ASSIGN_OR_RETURN(SearchResult result,
                           SearchWithCaps(*index, z, options, attributes, query.caps));
  if (query.diversity.has_value()) {
    const auto copy_vector = [&](int32_t item, std::span<float> out) {
      CopyItemVector(snapshot, items, item, width.levels, out);
    };
    result.items = PickDiverse(result.items, copy_vector, snapshot.sizes(), width.levels,
                               query.diversity->relevance, query.k);
  }
  return result;
}

}  // namespace nestrec

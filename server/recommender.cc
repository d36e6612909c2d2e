#include "server/recommender.h"

#include <optional>
#include <span>
#include <utility>

#include "base/status_macros.h"
#include "index/diversity.h"
#include "index/item_filter.h"
#include "index/predicate.h"

namespace nestrec {
namespace {

// What the query lets come back; nothing where that is everything.
absl::StatusOr<std::optional<ItemFilter>> FilterOf(const RecommendQuery& query,
                                                   const Snapshot& snapshot) {
  const int64_t items = snapshot.catalogue().size();
  std::optional<ItemFilter> filter;
  const auto narrow = [&](ItemFilter by) {
    filter = filter.has_value() ? filter->And(by) : std::move(by);
  };
  if (query.only.has_value()) {
    narrow(ItemFilter::Allowing(items, *query.only));
  }
  if (query.filter.has_value()) {
    NESTREC_ASSIGN_OR_RETURN(const ItemSet matching,
                             Matching(*query.filter, snapshot.attributes()));
    narrow(ItemFilter::Allowing(items, matching));
  }
  if (!query.excluded.empty()) {
    narrow(ItemFilter::Excluding(items, query.excluded));
  }
  return filter;
}

}  // namespace

absl::StatusOr<SearchResult> FindItems(const Snapshot& snapshot, const RecommendQuery& query,
                                       const WidthDecision& width, std::span<const float> z) {
  NESTREC_ASSIGN_OR_RETURN(const std::optional<ItemFilter> filter, FilterOf(query, snapshot));
  const SearchOptions options = {
      .k = query.diversity.has_value() ? query.diversity->candidates : query.k,
      .filter = filter.has_value() ? &*filter : nullptr,
      .min_score = query.min_score};
  NESTREC_ASSIGN_OR_RETURN(SearchResult result,
                           SearchWithCaps(snapshot.index(width.dim, width.index), z, options,
                                          snapshot.attributes(), query.caps));
  if (query.diversity.has_value()) {
    result.items = PickDiverse(result.items, snapshot.item_vectors(), width.levels,
                               query.diversity->relevance, query.k);
  }
  return result;
}

}  // namespace nestrec

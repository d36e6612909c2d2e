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
  snapshot.item_vectors().CopyRows(levels, item, z);
}

const ItemIndex& IndexOf(const Snapshot& snapshot, const RecommendQuery& query,
                         const WidthDecision& width) {
  return query.similar_to.has_value() ? snapshot.cosine_index(width.levels)
                                      : snapshot.index(width.dim, width.index);
}

std::vector<absl::StatusOr<SearchResult>> FindItems(const Snapshot& snapshot, const ItemView& items,
                                                    std::span<const FindRequest> requests) {
  const FindRequest& first = requests.front();
  const ItemIndex* index = &IndexOf(snapshot, *first.query, *first.width);
  std::optional<OverlaidIndex> overlaid;
  if (items.overlay() != nullptr) {
    overlaid.emplace(
        index, items.overlay(), snapshot.sizes(), first.width->levels,
        first.query->similar_to.has_value() ? Similarity::kCosine : Similarity::kProduct);
    index = &*overlaid;
  }
  const AttributeView attributes(snapshot.attributes(), items.attributes());
  const auto options_of = [](const RecommendQuery& query, const std::optional<ItemFilter>& filter) {
    return SearchOptions{.k = query.diversity.has_value() ? query.diversity->candidates : query.k,
                         .filter = filter.has_value() ? &*filter : nullptr,
                         .min_score = query.min_score};
  };
  std::vector<absl::StatusOr<std::optional<ItemFilter>>> filters;
  for (const FindRequest& request : requests) {
    filters.push_back(FilterOf(*request.query, attributes));
  }

  std::vector<absl::StatusOr<SearchResult>> results(requests.size(), SearchResult());
  std::vector<IndexQuery> together;
  std::vector<size_t> of_query;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (!filters[i].ok() || !requests[i].query->caps.empty()) continue;
    together.push_back({requests[i].z, options_of(*requests[i].query, *filters[i])});
    of_query.push_back(i);
  }
  std::vector<bool> found(requests.size(), false);
  if (together.size() > 1) {
    // What is wrong with one of them is for that one to say.
    absl::StatusOr<std::vector<SearchResult>> of_all = index->SearchBatch(together);
    for (size_t i = 0; of_all.ok() && i < together.size(); ++i) {
      results[of_query[i]] = std::move((*of_all)[i]);
      found[of_query[i]] = true;
    }
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const RecommendQuery& query = *requests[i].query;
    if (!filters[i].ok()) {
      results[i] = filters[i].status();
    } else if (!found[i]) {
      results[i] = SearchWithCaps(*index, requests[i].z, options_of(query, *filters[i]), attributes,
                                  query.caps);
    }
    if (!results[i].ok() || !query.diversity.has_value()) continue;
    const int levels = requests[i].width->levels;
    const auto copy_vector = [&](int32_t item, std::span<float> out) {
      CopyItemVector(snapshot, items, item, levels, out);
    };
    results[i]->items = PickDiverse(results[i]->items, copy_vector, snapshot.sizes(), levels,
                                    query.diversity->relevance, query.k);
  }
  return results;
}

absl::StatusOr<SearchResult> FindItems(const Snapshot& snapshot, const ItemView& items,
                                       const RecommendQuery& query, const WidthDecision& width,
                                       std::span<const float> z) {
  const FindRequest request = {&query, &width, z};
  return std::move(FindItems(snapshot, items, std::span(&request, 1)).front());
}

}  // namespace nestrec

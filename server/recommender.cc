#include "server/recommender.h"

#include <span>
#include <vector>

#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<Recommendation> Recommend(const Snapshot& snapshot, const RecommendQuery& query,
                                         const WidthDecision& width, const Clock& clock) {
  const Instant start = clock();
  std::vector<float> z(static_cast<size_t>(width.dim));  // [1, dim]
  const History history(query.history);
  NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode(std::span(&history, 1), width.levels, z));
  const Instant encoded = clock();

  const ItemFilter filter = ItemFilter::Excluding(snapshot.catalogue().size(), query.excluded);
  NESTREC_ASSIGN_OR_RETURN(SearchResult result,
                           snapshot.index(width.dim, width.index)
                               .Search(z, {.k = query.k,
                                           .filter = query.excluded.empty() ? nullptr : &filter,
                                           .min_score = query.min_score}));
  return Recommendation{.result = std::move(result),
                        .encode = Between(start, encoded),
                        .search = Between(encoded, clock())};
}

}  // namespace nestrec

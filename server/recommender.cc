#include "server/recommender.h"

#include <span>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace nestrec {

namespace {

// z [1, dim] of the query's history, or of its session followed by the history.
absl::StatusOr<std::vector<float>> VectorOf(const Snapshot& snapshot, const RecommendQuery& query,
                                            const WidthDecision& width, SessionManager* sessions) {
  const History history(query.history);
  if (query.session.has_value()) {
    const SessionQuery session = {
        .history = &*query.session, .more = history, .levels = width.levels};
    SessionAnswer answer;
    NESTREC_RETURN_IF_ERROR(
        sessions->Encode(snapshot.session_model(), std::span(&session, 1), std::span(&answer, 1)));
    return std::move(answer.z);
  }
  std::vector<float> z(static_cast<size_t>(width.dim));
  NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode(std::span(&history, 1), width.levels, z));
  return z;
}

}  // namespace

absl::StatusOr<Recommendation> Recommend(const Snapshot& snapshot, const RecommendQuery& query,
                                         const WidthDecision& width, const Clock& clock,
                                         SessionManager* sessions) {
  const Instant start = clock();
  NESTREC_ASSIGN_OR_RETURN(const std::vector<float> z,
                           VectorOf(snapshot, query, width, sessions));  // [1, dim]
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

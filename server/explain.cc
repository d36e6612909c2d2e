#include "server/explain.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/status_macros.h"
#include "index/score.h"
#include "server/recommender.h"

namespace nestrec {
namespace {

// Items that are encoded at a time: enough for the products, few enough to stop soon.
constexpr size_t kRowsAtATime = 512;

// Scores of each item for each z: [histories, items].
void AppendScores(const NestedSizes& sizes, int levels, std::span<const float> z,
                  std::span<const float> vectors, std::vector<float>& scores) {
  const auto dim = static_cast<size_t>(sizes.end(levels - 1));
  for (size_t h = 0; h < z.size(); h += dim) {
    for (size_t i = 0; i < vectors.size(); i += dim) {
      scores.push_back(CanonicalScore(z.subspan(h, dim), vectors.subspan(i, dim), sizes, levels));
    }
  }
}

}  // namespace

std::vector<int32_t> WindowOf(const RecommendQuery& query, int max_len) {
  const auto most = static_cast<size_t>(max_len);
  const size_t more = std::min(query.history.size(), most);
  std::vector<int32_t> window;
  if (query.session.has_value()) {
    // Events that the catalogue does not have take a place, as they do in the session's state.
    const std::vector<int32_t>& kept = query.session->items;
    const size_t count = std::min(kept.size(), most - more);
    std::copy_if(kept.end() - static_cast<std::ptrdiff_t>(count), kept.end(),
                 std::back_inserter(window), [](int32_t item) { return item != 0; });
  }
  window.insert(window.end(), query.history.end() - static_cast<std::ptrdiff_t>(more),
                query.history.end());
  return window;
}

absl::StatusOr<Explanation> Explain(const Snapshot& snapshot, std::vector<int32_t> window,
                                    int levels, const ExplainedItems& items,
                                    absl::FunctionRef<absl::Status()> go_on) {
  const auto dim = static_cast<size_t>(snapshot.sizes().end(levels - 1));
  const size_t found = items.found.size();
  std::vector<float> vectors(found * dim);
  for (size_t i = 0; i < found; ++i) {
    CopyItemVector(snapshot, *items.searched, items.found[i].item, levels,
                   std::span(vectors).subspan(i * dim, dim));
  }
  // History 0 is the whole window, history p + 1 lacks place p.
  std::vector<std::vector<int32_t>> histories(window.size() + 1, window);
  for (size_t p = 0; p < window.size(); ++p) {
    histories[p + 1].erase(histories[p + 1].begin() + static_cast<std::ptrdiff_t>(p));
  }
  std::vector<float> scores;  // [histories, items]
  const size_t at_a_time = std::max<size_t>(1, kRowsAtATime / std::max<size_t>(1, window.size()));
  std::vector<float> z;
  for (size_t begin = 0; begin < histories.size(); begin += at_a_time) {
    NESTREC_RETURN_IF_ERROR(go_on());
    const size_t count = std::min(at_a_time, histories.size() - begin);
    const std::vector<History> part(histories.begin() + static_cast<std::ptrdiff_t>(begin),
                                    histories.begin() + static_cast<std::ptrdiff_t>(begin + count));
    z.resize(count * dim);
    NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode(part, levels, z, items.known));
    AppendScores(snapshot.sizes(), levels, z, vectors, scores);
  }
  Explanation explanation{.window = std::move(window), .ids = {}, .contributions = {}};
  for (const int32_t item : explanation.window) {
    explanation.ids.emplace_back(items.known->id(item));
  }
  for (size_t i = 0; i < found; ++i) {
    for (size_t p = 0; p < explanation.window.size(); ++p) {
      explanation.contributions.push_back(scores[i] - scores[(p + 1) * found + i]);
    }
  }
  return explanation;
}

}  // namespace nestrec

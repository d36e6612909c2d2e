#include "index/exhaustive_search.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "index/score.h"

namespace nestrec {

absl::Status CheckSearch(std::span<const float> query, const SearchOptions& options, int dim,
                         int64_t items) {
  if (options.k < 1) {
    return absl::InvalidArgumentError(absl::StrCat("k is ", options.k, "; it must be at least 1"));
  }
  if (query.size() != static_cast<size_t>(dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the query has ", query.size(), " values; this index is ", dim, " wide"));
  }
  for (size_t i = 0; i < query.size(); ++i) {
    if (!std::isfinite(query[i])) {
      return absl::InvalidArgumentError(absl::StrCat("value ", i, " of the query is ", query[i]));
    }
  }
  if (options.filter != nullptr && options.filter->items() != items) {
    return absl::InvalidArgumentError(absl::StrCat("the filter is over ", options.filter->items(),
                                                   " items; this index has ", items));
  }
  if (options.min_score.has_value() && std::isnan(*options.min_score)) {
    return absl::InvalidArgumentError("min_score is not a number");
  }
  return absl::OkStatus();
}

SearchResult ExhaustiveSearch(std::span<const float> query, const LevelVectors& items, int levels,
                              const SearchOptions& options) {
  SearchResult result{.exact = true};
  std::vector<ScoredItem>& found = result.items;
  found.reserve(
      static_cast<size_t>(options.filter != nullptr ? options.filter->allowed() : items.items()));
  const auto consider = [&](int64_t item) {
    ++result.rescored;
    const float score = CanonicalScore(query, items, levels, item);
    if (!options.min_score.has_value() || score >= *options.min_score) {
      found.push_back({static_cast<int32_t>(item), score});
    }
  };
  if (options.filter != nullptr) {
    options.filter->ForEachAllowed(consider);
  } else {
    for (int64_t item = 1; item < items.rows; ++item) {
      consider(item);
    }
  }
  const size_t kept = std::min(found.size(), static_cast<size_t>(options.k));
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(kept), found.end(),
                    RanksBefore);
  found.resize(kept);
  return result;
}

}  // namespace nestrec

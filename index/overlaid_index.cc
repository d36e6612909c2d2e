#include "index/overlaid_index.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/cosine_index.h"
#include "index/exhaustive_search.h"
#include "index/score.h"

namespace nestrec {
namespace {

// As many hidden items are asked for beside those that are wanted, and sorted out; more of them
// become a filter, which costs a scan something.
constexpr size_t kHiddenBeforeFilter = 128;
// Rows whose vectors are fetched ahead: they lie wherever they were made.
constexpr size_t kAhead = 8;

}  // namespace

ItemOverlay::ItemOverlay(int64_t base_items, int64_t items, std::vector<Row> rows,
                         std::vector<int32_t> hidden)
    : base_items_(base_items),
      items_(items),
      rows_(std::move(rows)),
      hidden_(std::move(hidden)),
      shown_(ItemFilter::Excluding(base_items, hidden_)) {}

bool ItemOverlay::Hides(int32_t item) const {
  return std::binary_search(hidden_.begin(), hidden_.end(), item);
}

int64_t ItemOverlay::bytes() const {
  return static_cast<int64_t>(rows_.capacity() * sizeof(Row) +
                              hidden_.capacity() * sizeof(int32_t)) +
         shown_.bytes();
}

std::string OverlaidIndex::description() const {
  return absl::StrCat(index_->description(), " and ", overlay_->rows().size(), " live rows");
}

absl::StatusOr<SearchResult> OverlaidIndex::Search(std::span<const float> query,
                                                   const SearchOptions& options) const {
  NESTREC_RETURN_IF_ERROR(CheckSearch(query, options, dim(), items()));
  return Guard("searching live items", [&]() -> absl::StatusOr<SearchResult> {
    const Asked asked = Ask(options);
    NESTREC_ASSIGN_OR_RETURN(SearchResult result, index_->Search(query, asked.For(query).options));
    Complete({query, options}, result);
    return result;
  });
}

absl::StatusOr<std::vector<SearchResult>> OverlaidIndex::SearchBatch(
    std::span<const IndexQuery> queries) const {
  for (const IndexQuery& query : queries) {
    NESTREC_RETURN_IF_ERROR(CheckSearch(query.query, query.options, dim(), items()));
  }
  return Guard("searching live items", [&]() -> absl::StatusOr<std::vector<SearchResult>> {
    std::vector<Asked> asked;
    for (const IndexQuery& query : queries) asked.push_back(Ask(query.options));
    std::vector<IndexQuery> of_index;
    for (size_t i = 0; i < queries.size(); ++i) {
      of_index.push_back(asked[i].For(queries[i].query));
    }
    NESTREC_ASSIGN_OR_RETURN(std::vector<SearchResult> results, index_->SearchBatch(of_index));
    for (size_t i = 0; i < queries.size(); ++i) Complete(queries[i], results[i]);
    return results;
  });
}

IndexQuery OverlaidIndex::Asked::For(std::span<const float> query) const {
  IndexQuery of_index = {query, options};
  of_index.options.filter = filter.has_value() ? &*filter : nullptr;
  return of_index;
}

OverlaidIndex::Asked OverlaidIndex::Ask(const SearchOptions& options) const {
  const std::span<const int32_t> hidden = overlay_->hidden();
  Asked asked = {.filter = {}, .options = options};
  if (options.filter != nullptr) {
    asked.filter = options.filter->Resized(overlay_->base_items());
  }
  if (hidden.size() > kHiddenBeforeFilter || (asked.filter.has_value() && !hidden.empty())) {
    asked.filter =
        asked.filter.has_value() ? asked.filter->And(overlay_->shown()) : overlay_->shown();
  } else {
    // No item number reaches 2^32: no overflow.
    asked.options.k =
        std::min(options.k, overlay_->base_items()) + static_cast<int64_t>(hidden.size());
  }
  return asked;
}

void OverlaidIndex::Complete(const IndexQuery& query, SearchResult& result) const {
  if (!overlay_->hidden().empty()) {
    std::erase_if(result.items,
                  [&](const ScoredItem& found) { return overlay_->Hides(found.item); });
  }
  SearchRows(query.query, query.options, result);
  const size_t kept = std::min(result.items.size(), static_cast<size_t>(query.options.k));
  std::partial_sort(result.items.begin(), result.items.begin() + static_cast<std::ptrdiff_t>(kept),
                    result.items.end(), RanksBefore);
  result.items.resize(kept);
}

void OverlaidIndex::SearchRows(std::span<const float> query, const SearchOptions& options,
                               SearchResult& result) const {
  const std::span<const ItemOverlay::Row> rows = overlay_->rows();
  const auto dim = static_cast<size_t>(sizes_.end(levels_ - 1));
  const double query_square =
      similarity_ == Similarity::kCosine ? SquareOf(query, sizes_, levels_) : 0;
  const auto score_of = [&](std::span<const float> vector) {
    if (similarity_ == Similarity::kProduct) return CanonicalScore(query, vector, sizes_, levels_);
    double product = 0;
    for (int level = 0; level < levels_; ++level) {
      const auto begin = static_cast<size_t>(sizes_.begin(level));
      const auto width = static_cast<size_t>(sizes_.width(level));
      product += Dot(query.subspan(begin, width), vector.subspan(begin, width));
    }
    return CosineFromSums(product, query_square, SquareOf(vector, sizes_, levels_));
  };
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i + kAhead < rows.size()) __builtin_prefetch(rows[i + kAhead].vector);
    if (options.filter != nullptr && !options.filter->Allows(rows[i].item)) continue;
    ++result.rescored;
    const float score = score_of({rows[i].vector, dim});
    if (!options.min_score.has_value() || score >= *options.min_score) {
      result.items.push_back({rows[i].item, score});
    }
  }
}

}  // namespace nestrec

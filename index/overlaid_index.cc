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
    NESTREC_ASSIGN_OR_RETURN(SearchResult result, SearchIndex(query, options));
    SearchRows(query, options, result);
    const size_t kept = std::min(result.items.size(), static_cast<size_t>(options.k));
    std::partial_sort(result.items.begin(),
                      result.items.begin() + static_cast<std::ptrdiff_t>(kept), result.items.end(),
                      RanksBefore);
    result.items.resize(kept);
    return result;
  });
}

absl::StatusOr<SearchResult> OverlaidIndex::SearchIndex(std::span<const float> query,
                                                        const SearchOptions& options) const {
  const std::span<const int32_t> hidden = overlay_->hidden();
  SearchOptions ask = options;
  std::optional<ItemFilter> filter;
  if (options.filter != nullptr) {
    filter = options.filter->Resized(overlay_->base_items());
  }
  if (hidden.size() > kHiddenBeforeFilter || (filter.has_value() && !hidden.empty())) {
    filter = filter.has_value() ? filter->And(overlay_->shown()) : overlay_->shown();
  } else {
    // No item number reaches 2^32: no overflow.
    ask.k = std::min(options.k, overlay_->base_items()) + static_cast<int64_t>(hidden.size());
  }
  ask.filter = filter.has_value() ? &*filter : nullptr;
  NESTREC_ASSIGN_OR_RETURN(SearchResult result, index_->Search(query, ask));
  if (!hidden.empty()) {
    std::erase_if(result.items,
                  [&](const ScoredItem& found) { return overlay_->Hides(found.item); });
  }
  return result;
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

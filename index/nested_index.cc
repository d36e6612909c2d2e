#include "index/nested_index.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/exhaustive_search.h"

namespace nestrec {
namespace {

constexpr int64_t kMostExamples = 64;
// Of working memory, where searches of an ItemIndex are done together.
constexpr int64_t kMostScratchBytes = int64_t{64} << 20;

class NestedIndexAtLevels : public ItemIndex {
 public:
  NestedIndexAtLevels(std::shared_ptr<const NestedIndex> index, int levels, NestedSearchOptions how)
      : index_(std::move(index)), levels_(levels), how_(how) {}

  absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                      const SearchOptions& options) const override {
    return index_->Search(query, levels_, options, how_);
  }
  absl::StatusOr<std::vector<SearchResult>> SearchBatch(
      std::span<const IndexQuery> queries) const override;
  int dim() const override { return index_->sizes().end(levels_ - 1); }
  int64_t items() const override { return index_->items(); }
  int64_t bytes() const override {
    const ReducedView* const view = index_->reduced_view(levels_);
    return index_->codes(levels_).bytes() + (view != nullptr ? view->bytes() : 0);
  }
  bool exact() const override { return how_.share >= 1 && how_.most_scored == 0; }
  bool intact() const override { return index_->codes(levels_).intact(); }
  std::string description() const override {
    std::string text = "nested";
    if (const ReducedView* const view = index_->reduced_view(levels_)) {
      absl::StrAppend(&text, ", scans ", view->columns(), " columns");
    }
    if (how_.share < 1) absl::StrAppend(&text, ", bounds at ", how_.share);
    if (how_.most_scored > 0) absl::StrAppend(&text, ", scores at most ", how_.most_scored);
    return text;
  }

 private:
  std::shared_ptr<const NestedIndex> index_;
  int levels_;
  NestedSearchOptions how_;
};

absl::StatusOr<std::vector<SearchResult>> NestedIndexAtLevels::SearchBatch(
    std::span<const IndexQuery> queries) const {
  // What is left out for speed differs from batch to batch.
  if (!exact()) return ItemIndex::SearchBatch(queries);
  const size_t most = static_cast<size_t>(index_->MostTogether());
  std::vector<SearchResult> results;
  std::vector<NestedSearchRequest> requests;
  for (size_t from = 0; from < queries.size(); from += most) {
    requests.clear();
    for (const IndexQuery& query : queries.subspan(from, std::min(most, queries.size() - from))) {
      requests.push_back({query.query, levels_, query.options});
    }
    NESTREC_ASSIGN_OR_RETURN(std::vector<SearchResult> found, index_->SearchBatch(requests, how_));
    for (SearchResult& result : found) results.push_back(std::move(result));
  }
  return results;
}

}  // namespace

NestedIndex::~NestedIndex() {
  for (auto& slot : scratch_) delete slot.load();
}

absl::StatusOr<std::shared_ptr<const NestedIndex>> NestedIndex::Create(
    const LevelVectors& vectors, const Options& options, std::shared_ptr<const void> owner) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  return Guard("nested index", [&]() -> absl::StatusOr<std::shared_ptr<const NestedIndex>> {
    std::shared_ptr<NestedIndex> index(new NestedIndex(vectors, std::move(owner)));
    NESTREC_RETURN_IF_ERROR(index->Build(options));
    return std::shared_ptr<const NestedIndex>(std::move(index));
  });
}

absl::StatusOr<std::shared_ptr<const NestedIndex>> NestedIndex::CreateOf(
    std::vector<std::unique_ptr<const NestedCodes>> codes, const Options& options,
    std::shared_ptr<const void> owner) {
  return Guard("nested index", [&]() -> absl::StatusOr<std::shared_ptr<const NestedIndex>> {
    std::shared_ptr<NestedIndex> index(new NestedIndex(codes.back()->vectors(), std::move(owner)));
    NESTREC_RETURN_IF_ERROR(index->CheckExamples(options));
    index->first_levels_ = index->sizes().levels() - static_cast<int>(codes.size()) + 1;
    index->codes_.resize(static_cast<size_t>(index->first_levels_) - 1);
    std::move(codes.begin(), codes.end(), std::back_inserter(index->codes_));
    NESTREC_RETURN_IF_ERROR(index->Prepare(options));
    return std::shared_ptr<const NestedIndex>(std::move(index));
  });
}

absl::Status NestedIndex::CheckExamples(const Options& options) const {
  const size_t dim = static_cast<size_t>(sizes().max_dim());
  if (options.queries.size() % dim == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("examples of queries hold ",
                                                 options.queries.size(),
                                                 " values, which is no multiple of dim ", dim));
}

absl::Status NestedIndex::Build(const Options& options) {
  NESTREC_RETURN_IF_ERROR(CheckExamples(options));
  const size_t dim = static_cast<size_t>(sizes().max_dim());
  if (options.first_levels < 1 || options.first_levels > sizes().levels()) {
    return absl::InvalidArgumentError(absl::StrCat("levels is ", options.first_levels,
                                                   "; the vectors have ", sizes().levels(),
                                                   " (sizes ", sizes().ToString(), ")"));
  }
  first_levels_ = options.first_levels;
  codes_.resize(static_cast<size_t>(first_levels_) - 1);
  const size_t given = options.queries.size() / dim;
  for (int levels = first_levels_; levels <= sizes().levels(); ++levels) {
    const size_t width = static_cast<size_t>(sizes().end(levels - 1));
    std::vector<float> queries;
    for (size_t i = 0; i < given; ++i) {
      const auto query = options.queries.subspan(i * dim, width);
      queries.insert(queries.end(), query.begin(), query.end());
    }
    NESTREC_ASSIGN_OR_RETURN(auto codes,
                             NestedCodes::Create(vectors_.Prefix(levels), {.queries = queries}));
    codes_.push_back(std::move(codes));
  }
  return Prepare(options);
}

absl::Status NestedIndex::Prepare(const Options& options) {
  choices_.resize(codes_.size());
  KeepExamples(options.queries);
  for (int levels = first_levels_; levels <= sizes().levels(); ++levels) {
    NESTREC_RETURN_IF_ERROR(Choose(levels, options));
  }
  return absl::OkStatus();
}

int64_t NestedIndex::MostTogether() const {
  return std::max<int64_t>(1, kMostScratchBytes / (8 * items()));
}

int64_t NestedIndex::bytes() const {
  int64_t bytes = 0;
  for (const auto& codes : codes_) bytes += codes != nullptr ? codes->bytes() : 0;
  return bytes;
}

int64_t NestedIndex::reduced_bytes() const {
  int64_t bytes = 0;
  for (const Choices& choices : choices_) {
    bytes += choices.view != nullptr ? choices.view->bytes() : 0;
  }
  return bytes;
}

absl::Status NestedIndex::CheckLevels(int levels) const {
  if (levels >= first_levels_ && levels <= sizes().levels()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("levels is ", levels, "; this index holds ",
                                                 first_levels_, " to ", sizes().levels(),
                                                 " (sizes ", sizes().ToString(), ")"));
}

// Spread over what is given, or over the items.
void NestedIndex::KeepExamples(std::span<const float> queries) {
  const int64_t dim = sizes().max_dim();
  const int64_t given = static_cast<int64_t>(queries.size()) / dim;
  const int64_t from = given > 0 ? given : items();
  const int64_t kept = std::min(kMostExamples, from);
  for (int64_t i = 0; i < kept; ++i) {
    const int64_t row = i * from / kept;
    if (given > 0) {
      const auto query = queries.subspan(static_cast<size_t>(row * dim), static_cast<size_t>(dim));
      examples_.insert(examples_.end(), query.begin(), query.end());
    } else {
      examples_.resize(examples_.size() + static_cast<size_t>(dim));
      vectors_.CopyRows(sizes().levels(), row + 1,
                        std::span(examples_).last(static_cast<size_t>(dim)));
    }
  }
}

std::span<const float> NestedIndex::Example(int64_t i, int levels) const {
  const size_t dim = static_cast<size_t>(sizes().max_dim());
  return std::span(examples_).subspan(static_cast<size_t>(i) * dim,
                                      static_cast<size_t>(sizes().end(levels - 1)));
}

std::unique_ptr<NestedScratch> NestedIndex::TakeScratch() const {
  for (auto& slot : scratch_) {
    // Acquire pairs with the release of GiveBack: the arrays' pointers are seen whole.
    if (NestedScratch* const scratch = slot.exchange(nullptr, std::memory_order_acquire)) {
      return std::unique_ptr<NestedScratch>(scratch);
    }
  }
  return std::make_unique<NestedScratch>();
}

void NestedIndex::GiveBack(std::unique_ptr<NestedScratch> scratch) const {
  for (auto& slot : scratch_) {
    NestedScratch* empty = nullptr;
    if (slot.compare_exchange_strong(empty, scratch.get(), std::memory_order_release,
                                     std::memory_order_relaxed)) {
      scratch.release();
      return;
    }
  }
}

// A view answers where all of a call have its width: those of mixed widths share the vectors. Where
// the answer may be approximate, the funnel reads less than any scan.
NestedCodesRequest NestedIndex::RequestOf(const NestedSearchRequest& request, const Group& group,
                                          const NestedSearchOptions& how) const {
  const Choices& choices = ChoicesOf(request.levels);
  const size_t batch = BatchOf(group.queries);
  const size_t many = ManyOf(group.k);
  const bool exact = how.share >= 1 && how.most_scored == 0;
  const bool may_reduce = how.funnel ? group.alone && exact : how.reduced;
  return {.codes = &codes(request.levels),
          .query = request.query,
          .options = request.options,
          .funnel = choices.funnel[batch][many] && !(may_reduce && choices.reduced[batch][many]),
          .plan = choices.plans[many],
          .reduced = may_reduce && (!how.funnel || choices.scans_view[batch][many])
                         ? choices.view.get()
                         : nullptr};
}

absl::StatusOr<SearchResult> NestedIndex::Search(std::span<const float> query, int levels,
                                                 const SearchOptions& options,
                                                 const NestedSearchOptions& how,
                                                 NestedSearchStats* stats) const {
  NESTREC_RETURN_IF_ERROR(CheckLevels(levels));
  NESTREC_RETURN_IF_ERROR(CheckSearch(query, options, sizes().end(levels - 1), items()));
  return Guard("nested search", [&]() -> absl::StatusOr<SearchResult> {
    std::unique_ptr<NestedScratch> scratch = TakeScratch();
    NestedSearchStats counted;
    const NestedCodesRequest request =
        RequestOf({query, levels, options}, {.queries = 1, .k = options.k, .alone = true}, how);
    std::vector<SearchResult> results =
        SearchCodes(std::span(&request, 1), how, *scratch, std::span(&counted, 1));
    GiveBack(std::move(scratch));
    if (stats != nullptr) *stats = counted;
    return std::move(results[0]);
  });
}

absl::StatusOr<std::vector<SearchResult>> NestedIndex::SearchBatch(
    std::span<const NestedSearchRequest> requests, const NestedSearchOptions& how) const {
  for (size_t i = 0; i < requests.size(); ++i) {
    absl::Status status = CheckLevels(requests[i].levels);
    if (status.ok()) {
      status = CheckSearch(requests[i].query, requests[i].options,
                           sizes().end(requests[i].levels - 1), items());
    }
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("request ", i, ": ", status.message()));
    }
  }
  return Guard("nested search", [&]() -> absl::StatusOr<std::vector<SearchResult>> {
    // Those of one width side by side, the widest first.
    std::vector<size_t> order(requests.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return requests[a].levels > requests[b].levels; });
    std::vector<NestedCodesRequest> ordered;
    for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
      const int levels = requests[order[begin]].levels;
      // One way for all of a width, since they share what is read: that of the largest k.
      int64_t k = 0;
      for (; end < order.size() && requests[order[end]].levels == levels; ++end) {
        k = std::max(k, requests[order[end]].options.k);
      }
      const Group group = {.queries = static_cast<int64_t>(end - begin),
                           .k = k,
                           .alone = end - begin == order.size()};
      for (size_t i = begin; i < end; ++i) {
        ordered.push_back(RequestOf(requests[order[i]], group, how));
      }
    }
    std::unique_ptr<NestedScratch> scratch = TakeScratch();
    std::vector<NestedSearchStats> stats(requests.size());
    std::vector<SearchResult> found = SearchCodes(ordered, how, *scratch, stats);
    GiveBack(std::move(scratch));
    std::vector<SearchResult> results(requests.size());
    for (size_t i = 0; i < order.size(); ++i) results[order[i]] = std::move(found[i]);
    return results;
  });
}

absl::StatusOr<NestedSearchOptions> NestedIndex::FindOptions(
    int levels, int64_t k, const Approximation& approximation) const {
  NESTREC_RETURN_IF_ERROR(CheckLevels(levels));
  if (!(approximation.recall > 0 && approximation.recall <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("recall is ", approximation.recall, "; it must be above 0 and at most 1"));
  }
  if (approximation.candidates < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("candidates is ", approximation.candidates, "; 0 means no limit"));
  }
  NestedSearchOptions how = {.most_scored = approximation.candidates};
  if (approximation.recall >= 1) return how;
  const int64_t examples = static_cast<int64_t>(examples_.size()) / sizes().max_dim();
  std::vector<std::vector<ScoredItem>> best;
  for (int64_t i = 0; i < examples; ++i) {
    NESTREC_ASSIGN_OR_RETURN(SearchResult result, Search(Example(i, levels), levels, {.k = k}));
    best.push_back(std::move(result.items));
  }
  const auto recall = [&](float share) -> absl::StatusOr<double> {
    int64_t found = 0;
    int64_t wanted = 0;
    for (int64_t i = 0; i < examples; ++i) {
      NESTREC_ASSIGN_OR_RETURN(const SearchResult result,
                               Search(Example(i, levels), levels, {.k = k},
                                      {.share = share, .most_scored = approximation.candidates}));
      const auto& expected = best[static_cast<size_t>(i)];
      wanted += static_cast<int64_t>(expected.size());
      for (const ScoredItem& item : result.items) {
        found += static_cast<int64_t>(
            std::binary_search(expected.begin(), expected.end(), item, RanksBefore));
      }
    }
    return wanted == 0 ? 1.0 : static_cast<double>(found) / static_cast<double>(wanted);
  };
  float low = 0;  // recall is not reached, as far as is known
  float high = 1;
  for (int step = 0; step < 7; ++step) {
    const float middle = (low + high) / 2;
    NESTREC_ASSIGN_OR_RETURN(const double reached, recall(middle));
    (reached >= static_cast<double>(approximation.recall) ? high : low) = middle;
  }
  how.share = high;
  return how;
}

absl::StatusOr<std::unique_ptr<const ItemIndex>> NestedIndex::AtLevels(
    std::shared_ptr<const NestedIndex> index, int levels, const Approximation& approximation) {
  constexpr int64_t kMostUsualCount = 100;
  NESTREC_ASSIGN_OR_RETURN(const NestedSearchOptions how,
                           index->FindOptions(levels, kMostUsualCount, approximation));
  return std::make_unique<const NestedIndexAtLevels>(std::move(index), levels, how);
}

}  // namespace nestrec

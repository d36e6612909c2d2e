#include "index/faiss_index.h"

#include <faiss/IndexFlat.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/exhaustive_search.h"
#include "index/faiss_compat.h"
#include "index/faiss_store.h"
#include "index/mapped_lists.h"
#include "index/score.h"

namespace nestrec {
namespace {

using faiss_compat::IndexId;

// How many times the first look's candidates each look asks for.
constexpr int64_t kLooks[] = {1, 8};
// Exclusions that are asked for as candidates and dropped.
constexpr int64_t kSortedOut = 64;
// Of Clustering's max_points_per_centroid, and as many for each of the 4096 codes of 12 bits.
constexpr int64_t kTrainingPerList = 256;
constexpr int64_t kTrainingItems = kTrainingPerList << 12;

class FilterSelector final : public faiss::IDSelector {
 public:
  explicit FilterSelector(const ItemFilter& filter) : filter_(filter) {}
  bool is_member(IndexId id) const override { return filter_.Allows(id + 1); }

 private:
  const ItemFilter& filter_;
};

double Norm(std::span<const float> vector) { return std::sqrt(Dot(vector, vector)); }

// Of any item, at the first `levels` levels.
double MaxNorm(const LevelVectors& vectors, int levels) {
  double most = 0;
  std::vector<float> vector(static_cast<size_t>(vectors.sizes.end(levels - 1)));
  for (int64_t row = 1; row < vectors.rows; ++row) {
    vectors.CopyRows(levels, row, vector);
    most = std::max(most, Dot(vector, vector));
  }
  return std::sqrt(most);
}

struct Candidates {
  std::vector<ScoredItem> items;  // canonical scores, unordered
  double lowest_faiss =
      -std::numeric_limits<double>::infinity();  // FAISS's own score of the last one
  bool complete = false;                         // these are all allowed items
};

class FaissIndex final : public TunableFaissIndex {
 public:
  FaissIndex(LevelVectors vectors, int levels, FaissIndexOptions options,
             std::shared_ptr<const void> owner)
      : vectors_(std::move(vectors)),
        levels_(levels),
        options_(std::move(options)),
        owner_(std::move(owner)) {}

  // Takes the FAISS index of these vectors.
  absl::Status Adopt(std::unique_ptr<faiss::Index> index);

  absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                      const SearchOptions& options) const override {
    NESTREC_RETURN_IF_ERROR(CheckSearch(query, options, dim(), items()));
    return Guard("searching an index", [&]() -> absl::StatusOr<SearchResult> {
      return exact_ ? SearchExact(query, options) : SearchApproximate(query, options);
    });
  }

  absl::Status Tune(const std::string& parameters, int extra_candidates) override {
    options_.parameters = parameters;
    options_.extra_candidates = extra_candidates;
    return faiss_store::SetParameters(parameters, *index_);
  }
  int dim() const override { return vectors_.sizes.end(levels_ - 1); }
  int64_t items() const override { return vectors_.items(); }
  int64_t bytes() const override { return bytes_; }
  bool exact() const override { return exact_; }
  bool intact() const override { return ListsIntact(*index_); }
  std::string description() const override { return absl::StrCat("faiss ", options_.factory); }

 private:
  bool ProbeSelectors() const;
  absl::StatusOr<SearchResult> SearchExact(std::span<const float> query,
                                           const SearchOptions& options) const;
  absl::StatusOr<SearchResult> SearchApproximate(std::span<const float> query,
                                                 const SearchOptions& options) const;
  Candidates FindCandidates(std::span<const float> query, int64_t count,
                            const ItemFilter* filter) const;
  // Whether the filter goes into FAISS's scan. A few exclusions are sorted out after it instead,
  // which costs less than asking about every vector.
  bool LooksInside(const ItemFilter& filter) const {
    return takes_selectors_ && items() - filter.allowed() > kSortedOut;
  }
  int64_t AllowedItems(const SearchOptions& options) const {
    return options.filter != nullptr ? options.filter->allowed() : items();
  }
  // Whether finding `count` candidates takes more than scoring the allowed items one by one.
  bool LookCostsMore(int64_t count, const SearchOptions& options) const;
  SearchResult Exhaustive(std::span<const float> query, const SearchOptions& options) const {
    return ExhaustiveSearch(query, vectors_, levels_, options);
  }

  LevelVectors vectors_;
  int levels_;
  FaissIndexOptions options_;
  std::shared_ptr<const void> owner_;
  std::unique_ptr<faiss::Index> index_;
  bool exact_ = false;
  bool takes_selectors_ = false;
  double max_norm_ = 0;  // of any item, at dim()
  int64_t bytes_ = 0;
};

absl::Status FaissIndex::Adopt(std::unique_ptr<faiss::Index> index) {
  return Guard("taking an index", [&]() -> absl::Status {
    index_ = std::move(index);
    bytes_ = faiss_store::BytesOf(*index_);
    exact_ = dynamic_cast<const faiss::IndexFlat*>(index_.get()) != nullptr;
    takes_selectors_ = ProbeSelectors();
    if (exact_) {
      max_norm_ = MaxNorm(vectors_, levels_);
    }
    return absl::OkStatus();
  });
}

// Whether the index obeys a selector: kinds differ, and so do releases.
bool FaissIndex::ProbeSelectors() const {
  return Guard("probing selectors",
               [&]() -> absl::Status {
                 std::vector<int32_t> others;
                 for (int64_t item = 2; item <= items(); ++item) {
                   others.push_back(static_cast<int32_t>(item));
                 }
                 const ItemFilter only_first = ItemFilter::Excluding(items(), others);
                 FilterSelector selector(only_first);
                 const faiss_compat::SelectorParameters parameters(*index_, &selector);
                 const std::vector<float> query(static_cast<size_t>(dim()), 1.0f);
                 float score = 0;
                 IndexId label = -1;
                 index_->search(1, query.data(), 1, &score, &label, parameters.get());
                 return label <= 0 ? absl::OkStatus()
                                   : absl::UnimplementedError("the selector was ignored");
               })
      .ok();
}

Candidates FaissIndex::FindCandidates(std::span<const float> query, int64_t count,
                                      const ItemFilter* filter) const {
  Candidates candidates;
  const int64_t allowed = filter != nullptr ? filter->allowed() : items();
  const bool inside = filter != nullptr && LooksInside(*filter);
  // An exact index looks at everything anyway.
  const double effort =
      static_cast<double>(items()) / static_cast<double>(std::max<int64_t>(allowed, 1));
  const int64_t wanted = std::min(inside || filter == nullptr ? allowed : items(),
                                  inside ? count : count + items() - allowed);
  std::vector<float> scores(static_cast<size_t>(wanted));
  std::vector<IndexId> labels(static_cast<size_t>(wanted), -1);
  if (inside) {
    FilterSelector selector(*filter);
    const faiss_compat::SelectorParameters parameters(*index_, &selector, effort);
    index_->search(1, query.data(), wanted, scores.data(), labels.data(), parameters.get());
  } else {
    index_->search(1, query.data(), wanted, scores.data(), labels.data());
  }
  candidates.items.reserve(labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) {
      break;  // FAISS pads with -1
    }
    candidates.lowest_faiss = scores[i];
    const int64_t item = labels[i] + 1;
    if (filter == nullptr || filter->Allows(item)) {
      candidates.items.push_back(
          {static_cast<int32_t>(item), CanonicalScore(query, vectors_, levels_, item)});
    }
  }
  candidates.complete = static_cast<int64_t>(candidates.items.size()) == allowed;
  return candidates;
}

// Orders candidates and keeps the best k that reach min_score.
SearchResult Rank(std::vector<ScoredItem> candidates, const SearchOptions& options) {
  SearchResult result;
  result.rescored = static_cast<int64_t>(candidates.size());
  result.items = std::move(candidates);
  if (options.min_score.has_value()) {
    std::erase_if(result.items,
                  [&](const ScoredItem& item) { return item.score < *options.min_score; });
  }
  std::sort(result.items.begin(), result.items.end(), RanksBefore);
  if (static_cast<int64_t>(result.items.size()) > options.k) {
    result.items.resize(static_cast<size_t>(options.k));
  }
  return result;
}

bool FaissIndex::LookCostsMore(int64_t count, const SearchOptions& options) const {
  const int64_t allowed = AllowedItems(options);
  if (count * 2 > allowed) {
    return true;
  }
  if (options.filter == nullptr) {
    return false;
  }
  if (options.filter->few().has_value()) {
    return true;
  }
  if (!LooksInside(*options.filter)) {  // candidates to sort out: as many more as are excluded
    return count + items() - allowed > allowed;
  }
  // Nanoseconds as measured by bench/filter_bench with AVX2: asking a selector, with the branch
  // that follows; a product of FAISS; going to another place in memory; a canonical score.
  const double product = 2 + 0.22 * dim();
  constexpr double kAsk = 8;
  constexpr double kJump = 30;
  const double score = 4 + 0.42 * dim();
  const double share = static_cast<double>(allowed) / static_cast<double>(items());
  const faiss_compat::Look look = faiss_compat::LookOf(*index_, share);
  return static_cast<double>(allowed) * score <=
         look.visited * (kAsk + (look.jumps ? kJump : 0)) + look.computed * product;
}

absl::StatusOr<SearchResult> FaissIndex::SearchExact(std::span<const float> query,
                                                     const SearchOptions& options) const {
  const int64_t allowed = AllowedItems(options);
  const int64_t k = std::min(options.k, allowed);
  // |FAISS's float sum - exact sum| <= gamma_n ||q|| ||e||; the canonical score adds a rounding to
  // float and a double sum's error, far below one more unit of n. Where the products could
  // overflow, FAISS's sums mean nothing.
  const double norms = Norm(query) * max_norm_;
  const double unit = 0x1.0p-24 * (dim() + 8);
  const double error = norms * unit / (1 - unit) * (1 + 1e-9) + (dim() + 8) * 0x1.0p-149;
  const bool overflows = !(norms < std::numeric_limits<float>::max() / 4);

  for (const int64_t look : kLooks) {
    const int64_t count = look * (k + options_.extra_candidates);
    if (overflows || LookCostsMore(count, options)) {
      break;  // ranking everything costs no more
    }
    Candidates candidates = FindCandidates(query, count, options.filter);
    const double rest = candidates.lowest_faiss + error;  // no other item scores higher
    const bool complete = candidates.complete;
    SearchResult result = Rank(std::move(candidates.items), options);
    const bool full = static_cast<int64_t>(result.items.size()) == k;
    if (complete || (full && result.items.back().score > rest) ||
        (options.min_score.has_value() && *options.min_score > rest)) {
      result.exact = true;
      return result;
    }
  }
  return Exhaustive(query, options);
}

absl::StatusOr<SearchResult> FaissIndex::SearchApproximate(std::span<const float> query,
                                                           const SearchOptions& options) const {
  const int64_t allowed = AllowedItems(options);
  const int64_t k = std::min(options.k, allowed);
  const int64_t count = k + std::max<int64_t>(k, options_.extra_candidates);
  if (LookCostsMore(count, options)) {
    return Exhaustive(query, options);  // ranking all that are allowed costs no more
  }
  Candidates candidates = FindCandidates(query, count, options.filter);
  if (static_cast<int64_t>(candidates.items.size()) < k) {
    return Exhaustive(query, options);  // the index lost some: graph and list searches may
  }
  return Rank(std::move(candidates.items), options);
}

absl::StatusOr<std::unique_ptr<TunableFaissIndex>> Wrap(const LevelVectors& vectors, int levels,
                                                        const FaissIndexOptions& options,
                                                        std::shared_ptr<const void> owner,
                                                        std::unique_ptr<faiss::Index> faiss_index) {
  auto index = std::make_unique<FaissIndex>(vectors, levels, options, std::move(owner));
  NESTREC_RETURN_IF_ERROR(index->Adopt(std::move(faiss_index)));
  return index;
}

}  // namespace

int64_t TrainingItems(int64_t items, int64_t lists) {
  return std::min(items, std::max(kTrainingItems, kTrainingPerList * lists));
}

absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildFaissIndex(
    const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
    std::shared_ptr<const void> owner) {
  return BuildTunableFaissIndex(vectors, levels, options, std::move(owner));
}

absl::StatusOr<std::unique_ptr<TunableFaissIndex>> BuildTunableFaissIndex(
    const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
    std::shared_ptr<const void> owner) {
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<faiss::Index> built,
                           faiss_store::Build(vectors, levels, options));
  return Wrap(vectors, levels, options, std::move(owner), std::move(built));
}

absl::StatusOr<KeptIndex> LoadOrBuildFaissIndex(const LevelVectors& vectors, int levels,
                                                const FaissIndexOptions& options,
                                                std::shared_ptr<const void> owner,
                                                const std::string& path, absl::string_view source) {
  NESTREC_RETURN_IF_ERROR(faiss_store::CheckVectors(vectors, levels));
  KeptIndex kept;
  const std::string key = faiss_store::KeyOf(vectors, levels, options, source);
  absl::StatusOr<std::unique_ptr<faiss::Index>> index =
      faiss_store::Read(path, key, vectors, levels);
  kept.load = index.status();
  if (index.ok()) {
    NESTREC_RETURN_IF_ERROR(faiss_store::SetParameters(options.parameters, **index));
  } else {
    NESTREC_ASSIGN_OR_RETURN(index, faiss_store::Build(vectors, levels, options));
    kept.save = faiss_store::Write(**index, path, key);
  }
  NESTREC_ASSIGN_OR_RETURN(kept.index,
                           Wrap(vectors, levels, options, std::move(owner), *std::move(index)));
  return kept;
}

bool IsWorthKeeping(const FaissIndexOptions& options) { return options.factory != "Flat"; }

}  // namespace nestrec

#include "index/faiss_index.h"

#include <faiss/AutoTune.h>
#include <faiss/IndexFlat.h>
#include <faiss/impl/io.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/exhaustive_search.h"
#include "index/faiss_compat.h"
#include "index/score.h"

namespace nestrec {
namespace {

using faiss_compat::IndexId;

// How many times the first look's candidates each look asks for.
constexpr int64_t kLooks[] = {1, 8};
// Rows copied to FAISS at once.
constexpr int64_t kRowsPerAdd = 4096;

class FilterSelector final : public faiss::IDSelector {
 public:
  explicit FilterSelector(const ItemFilter& filter) : filter_(filter) {}
  bool is_member(IndexId id) const override { return filter_.Allows(id + 1); }

 private:
  const ItemFilter& filter_;
};

// Counts what FAISS would write: the only measure of size that it has for every kind of index.
class ByteCounter final : public faiss::IOWriter {
 public:
  size_t operator()(const void*, size_t size, size_t count) override {
    bytes_ += size * count;
    return count;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

double Norm(std::span<const float> vector) { return std::sqrt(Dot(vector, vector)); }

struct Candidates {
  std::vector<ScoredItem> items;  // canonical scores, unordered
  double lowest_faiss =
      -std::numeric_limits<double>::infinity();  // FAISS's own score of the last one
  bool complete = false;                         // these are all allowed items
};

class FaissIndex final : public ItemIndex {
 public:
  FaissIndex(LevelVectors vectors, int levels, FaissIndexOptions options,
             std::shared_ptr<const void> owner)
      : vectors_(std::move(vectors)),
        levels_(levels),
        options_(std::move(options)),
        owner_(std::move(owner)) {}

  absl::Status Build();

  absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                      const SearchOptions& options) const override {
    NESTREC_RETURN_IF_ERROR(CheckSearch(query, options, dim(), items()));
    return Guard("searching an index", [&]() -> absl::StatusOr<SearchResult> {
      return exact_ ? SearchExact(query, options) : SearchApproximate(query, options);
    });
  }

  int dim() const override { return vectors_.sizes.end(levels_ - 1); }
  int64_t items() const override { return vectors_.items(); }
  int64_t bytes() const override { return bytes_; }
  bool exact() const override { return exact_; }
  std::string description() const override { return absl::StrCat("faiss ", options_.factory); }

 private:
  void AddVectors();
  bool ProbeSelectors() const;
  absl::StatusOr<SearchResult> SearchExact(std::span<const float> query,
                                           const SearchOptions& options) const;
  absl::StatusOr<SearchResult> SearchApproximate(std::span<const float> query,
                                                 const SearchOptions& options) const;
  Candidates FindCandidates(std::span<const float> query, int64_t count,
                            const ItemFilter* filter) const;
  int64_t AllowedItems(const SearchOptions& options) const {
    return options.filter != nullptr ? options.filter->allowed() : items();
  }
  static bool AllowsFew(const SearchOptions& options) {
    return options.filter != nullptr && options.filter->few().has_value();
  }
  // Whether finding `count` candidates with a filter takes more than scoring the `allowed` items.
  bool LookCostsMore(int64_t count, int64_t allowed) const {
    if (allowed == items()) {
      return false;
    }
    if (!takes_selectors_) {  // candidates to sort out: as many more as are excluded
      return count + items() - allowed > allowed;
    }
    const double share = static_cast<double>(allowed) / static_cast<double>(items());
    return static_cast<double>(allowed) <= faiss_compat::DistancesOfLook(*index_, share);
  }
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

// Copies rows [begin, end) of the first levels into `out`, [end - begin, dim].
void CopyRows(const LevelVectors& vectors, int levels, int64_t begin, int64_t end, float* out) {
  for (int64_t row = begin; row < end; ++row) {
    for (int level = 0; level < levels; ++level) {
      const std::span<const float> part = vectors.row(level, row);
      out = std::copy(part.begin(), part.end(), out);
    }
  }
}

absl::Status CheckFinite(const LevelVectors& vectors, int levels) {
  for (int level = 0; level < levels; ++level) {
    const int width = vectors.sizes.width(level);
    for (int64_t row = 1; row < vectors.rows; ++row) {
      const std::span<const float> part = vectors.row(level, row);
      for (int column = 0; column < width; ++column) {
        if (!std::isfinite(part[column])) {
          return absl::InvalidArgumentError(absl::StrCat("the vector of item ", row, " has ",
                                                         part[column], " in column ",
                                                         vectors.sizes.begin(level) + column));
        }
      }
    }
  }
  return absl::OkStatus();
}

// FAISS opens its messages with "Error in <function> at <file>.cpp:<line>: ".
absl::string_view WithoutSourcePlace(absl::string_view message) {
  const size_t file = message.find(".cpp:");
  const size_t end = file == absl::string_view::npos ? file : message.find(": ", file);
  return absl::StripPrefix(end == absl::string_view::npos ? message : message.substr(end), ": ");
}

absl::Status FaissIndex::Build() {
  NESTREC_RETURN_IF_ERROR(vectors_.Validate());
  if (levels_ < 1 || levels_ > vectors_.sizes.levels()) {
    return absl::InvalidArgumentError(
        absl::StrCat("levels is ", levels_, "; these vectors have 1 to ", vectors_.sizes.levels()));
  }
  NESTREC_RETURN_IF_ERROR(CheckFinite(vectors_, levels_));

  const std::string what = absl::StrCat(
      "building the index \"", options_.factory, "\"", options_.parameters.empty() ? "" : " with ",
      options_.parameters, " for ", items(), " items of dim ", dim());
  absl::Status status = Guard(what, [&]() -> absl::Status {
    index_.reset(
        faiss::index_factory(dim(), options_.factory.c_str(), faiss::METRIC_INNER_PRODUCT));
    AddVectors();
    if (!options_.parameters.empty()) {
      faiss::ParameterSpace().set_index_parameters(index_.get(), options_.parameters.c_str());
    }
    ByteCounter counter;
    faiss::write_index(index_.get(), &counter);
    bytes_ = static_cast<int64_t>(counter.bytes());
    return absl::OkStatus();
  });
  if (status.code() == absl::StatusCode::kInternal) {
    // FAISS has one exception for all; with vectors that are known to be good it is about the
    // strings.
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", WithoutSourcePlace(absl::StripPrefix(status.message(), what))));
  }
  NESTREC_RETURN_IF_ERROR(status);
  exact_ = dynamic_cast<const faiss::IndexFlat*>(index_.get()) != nullptr;
  takes_selectors_ = ProbeSelectors();
  return absl::OkStatus();
}

void FaissIndex::AddVectors() {
  std::vector<float> rows;
  if (!index_->is_trained) {
    rows.resize(static_cast<size_t>(items()) * static_cast<size_t>(dim()));
    CopyRows(vectors_, levels_, 1, vectors_.rows, rows.data());
    index_->train(items(), rows.data());
  }
  if (auto* codes = dynamic_cast<faiss::IndexFlatCodes*>(index_.get())) {
    faiss_compat::ReserveCodes(*codes, static_cast<size_t>(items()));
  }
  rows.resize(static_cast<size_t>(std::min(items(), kRowsPerAdd)) * static_cast<size_t>(dim()));
  rows.shrink_to_fit();
  for (int64_t begin = 1; begin < vectors_.rows; begin += kRowsPerAdd) {
    const int64_t end = std::min(begin + kRowsPerAdd, vectors_.rows);
    CopyRows(vectors_, levels_, begin, end, rows.data());
    index_->add(end - begin, rows.data());
    for (int64_t row = 0; row < end - begin; ++row) {
      const std::span<const float> vector(rows.data() + row * dim(), static_cast<size_t>(dim()));
      max_norm_ = std::max(max_norm_, Norm(vector));
    }
  }
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
  const bool inside = filter != nullptr && takes_selectors_;
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
    if (overflows || count * 2 > allowed || AllowsFew(options)) {
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
  if (count * 2 > allowed || AllowsFew(options) || LookCostsMore(count, allowed)) {
    return Exhaustive(query, options);  // ranking all that are allowed costs no more
  }
  Candidates candidates = FindCandidates(query, count, options.filter);
  if (static_cast<int64_t>(candidates.items.size()) < k) {
    return Exhaustive(query, options);  // the index lost some: graph and list searches may
  }
  return Rank(std::move(candidates.items), options);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildFaissIndex(
    const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
    std::shared_ptr<const void> owner) {
  auto index = std::make_unique<FaissIndex>(vectors, levels, options, std::move(owner));
  NESTREC_RETURN_IF_ERROR(index->Build());
  return index;
}

}  // namespace nestrec

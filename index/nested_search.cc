#include "index/nested_search.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>

#include "index/nested_kernels.h"
#include "index/top_items.h"

namespace nestrec {
namespace {

constexpr int64_t kBlock = 1024;  // items that are read together
constexpr int64_t kItemsWorthThreads = 1 << 14;
constexpr int64_t kSampleRun = 32;  // neighbours in the sample
constexpr float kLowest = std::numeric_limits<float>::lowest();
// What reading one cache line of a listed item costs, of reading it in passing.
constexpr double kListedCost = 2.0;
// Bytes for which a core writes and reads back sums and bounds of an item, and selects by them.
constexpr double kItemCost = 40;

template <typename T>
void KeepAt(std::vector<T>& values, const std::vector<int32_t>& kept) {
  for (size_t i = 0; i < kept.size(); ++i) values[i] = values[static_cast<size_t>(kept[i])];
  values.resize(kept.size());
}

// One query on its way through the funnel.
class Funnel {
 public:
  Funnel(const NestedStore& store, const NestedSearchRequest& request,
         const NestedSearchOptions& options, NestedScratch::PerQuery& scratch,
         NestedSearchStats& stats)
      : store_(store),
        request_(request),
        options_(options),
        filter_(request.options.filter),
        k_(request.options.k),
        scratch_(scratch),
        stats_(stats),
        best_(request.options.k, request.options.min_score) {}

  // Step 1. After it, reads_all_items() says whether ScanBlock is to be called for all blocks.
  void Plan();
  bool reads_all_items() const { return read_ > 0; }
  void ScanBlock(int64_t begin, int64_t count);
  // Steps 3 to 5, or scoring everything.
  SearchResult Finish();

 private:
  bool Allows(int64_t row) const { return filter_ == nullptr || filter_->Allows(row + 1); }
  void Score(int64_t row) {
    ++stats_.scored;
    best_.Offer(static_cast<int32_t>(row + 1), store_.Score(request_.query, request_.levels, row));
  }
  void ScoreFew(std::span<const int32_t> items);
  void ScoreAll();
  void ReadSample(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates);
  void Choose(const std::vector<std::vector<float>>& bounds, const std::vector<float>& estimates);
  void ScoreSeeds();
  std::vector<int32_t> SelectRows(float threshold) const;
  void Select();
  void ReadListed(int begin, int end);
  void ReadListedFinely(int end);
  void DropListed(const NestedQuery::Slack& slack);
  void ScoreBestListed();
  void ScoreListed();
  double CodeBytes(int begin, int end) const;

  const NestedStore& store_;
  const NestedSearchRequest& request_;
  const NestedSearchOptions& options_;
  const ItemFilter* filter_;
  int64_t k_;
  NestedScratch::PerQuery& scratch_;
  NestedSearchStats& stats_;
  TopItems best_;
  std::optional<NestedQuery> query_;
  int read_ = 0;                      // groups that are read for all items; 0: everything is scored
  int last_ = 0;                      // groups that are read for those that are left
  float seed_bound_ = 0;              // that a few times k items' bounds reach
  std::vector<int32_t> scored_;       // rows, ascending
  std::vector<int32_t> rows_;         // what is left, ascending
  std::vector<float> sums_, bounds_;  // of rows_
};

double Funnel::CodeBytes(int begin, int end) const {
  double bytes = 0;
  for (int g = begin; g < end; ++g) {
    bytes += static_cast<double>(store_.groups()[static_cast<size_t>(g)].row_bytes);
  }
  return bytes;
}

void Funnel::ScoreFew(std::span<const int32_t> items) {
  for (const int32_t item : items) Score(item - 1);
}

void Funnel::ScoreAll() {
  stats_.plain = true;
  const int64_t n = store_.items();
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  int64_t scored = 0;
#pragma omp parallel if (n >= kItemsWorthThreads)
  {
    TopItems best(k_, request_.options.min_score);
    std::vector<double> sums(kBlock);
    std::vector<float> scores(kBlock);
    std::vector<int32_t> selected(kBlock + 64);
#pragma omp for schedule(static) reduction(+ : scored)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * kBlock;
      const int64_t count = std::min(kBlock, n - begin);
      store_.Scores(request_.query, request_.levels, begin, count, sums.data(), scores.data());
      scored += count;
      const int64_t found = SelectNotBelow(scores.data(), count, best.threshold(),
                                           static_cast<int32_t>(begin), selected.data());
      for (int64_t i = 0; i < found; ++i) {
        const int32_t row = selected[static_cast<size_t>(i)];
        const float score = scores[static_cast<size_t>(row - begin)];
        if (score >= best.threshold() && Allows(row)) best.Offer(row + 1, score);
      }
    }
#pragma omp critical(nestrec_funnel)
    best_.OfferAll(best);
  }
  stats_.scored += scored;
  stats_.bytes_read += store_.vector_bytes(request_.levels);
}

void Funnel::Plan() {
  const int64_t allowed = filter_ != nullptr ? filter_->allowed() : store_.items();
  if (filter_ != nullptr && filter_->few().has_value()) return;
  const bool zero = std::all_of(request_.query.begin(), request_.query.end(),
                                [](float value) { return value == 0; });
  // Where more than a few of the items are asked for, nothing can be dropped early.
  if (!options_.funnel || zero || k_ > allowed / 8) return;
  query_.emplace(store_, request_.query, request_.levels, options_.share);
  std::vector<std::vector<float>> bounds;
  std::vector<float> estimates;
  ReadSample(bounds, estimates);
  if (estimates.empty()) return;  // too few allowed items to tell
  Choose(bounds, estimates);
}

// Bounds after each group, and estimates, of the sample's allowed items.
void Funnel::ReadSample(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates) {
  const int64_t n = store_.items();
  const int64_t runs = std::min(n / kSampleRun, std::max<int64_t>(16, n / 128 / kSampleRun));
  const int groups = query_->groups();
  bounds.resize(static_cast<size_t>(groups));
  std::vector<float> sums(kSampleRun), slacks(kSampleRun), ends(kSampleRun);
  for (int64_t run = 0; run < runs; ++run) {
    const int64_t begin = run * (n / runs);
    std::fill(sums.begin(), sums.end(), query_->start());
    for (int g = 0; g < groups; ++g) {
      const NestedStore::Group& codes = store_.groups()[static_cast<size_t>(g)];
      AddNibbleDots(codes.high_rows(), begin, kSampleRun, query_->high(g), sums.data());
      const NestedQuery::Slack& slack = query_->slack4(g + 1);
      std::fill(slacks.begin(), slacks.end(), slack.constant);
      AddByteDots(store_.bounds4(), begin, kSampleRun, slack.rows4(), slacks.data());
      MultiplyBounds(store_.scales() + begin, sums.data(), slacks.data(), kSampleRun, ends.data());
      for (int64_t i = 0; i < kSampleRun; ++i) {
        if (Allows(begin + i)) bounds[static_cast<size_t>(g)].push_back(ends[i]);
      }
    }
    for (int64_t i = 0; i < kSampleRun; ++i) {
      if (Allows(begin + i)) estimates.push_back(store_.scales()[begin + i] * sums[i]);
    }
  }
}

// The value that `count` of them reach.
float Reached(std::vector<float> values, int64_t count) {
  // NaN stands for what is always looked at: before all else.
  const auto above = [](float a, float b) { return std::isnan(a) ? !std::isnan(b) : a > b; };
  const int64_t at = std::clamp<int64_t>(count - 1, 0, static_cast<int64_t>(values.size()) - 1);
  std::nth_element(values.begin(), values.begin() + at, values.end(), above);
  return values[static_cast<size_t>(at)];
}

void Funnel::Choose(const std::vector<std::vector<float>>& bounds,
                    const std::vector<float>& estimates) {
  const int64_t sampled = static_cast<int64_t>(estimates.size());
  const double n = static_cast<double>(filter_ != nullptr ? filter_->allowed() : store_.items());
  const double per_sample = n / static_cast<double>(sampled);
  const float goal = Reached(estimates, std::llround(static_cast<double>(k_) / per_sample));
  const int groups = query_->groups();
  std::vector<double> left(static_cast<size_t>(groups) + 1, 1.0);  // shares, by groups read
  for (int g = 0; g < groups; ++g) {
    const auto& reached = bounds[static_cast<size_t>(g)];
    left[static_cast<size_t>(g) + 1] =
        static_cast<double>(std::count_if(reached.begin(), reached.end(),
                                          [&](float bound) { return !(bound < goal); })) /
        static_cast<double>(sampled);
  }
  // Later groups that drop next to nothing are not read.
  last_ = groups;
  while (last_ > 1 &&
         left[static_cast<size_t>(last_) - 1] <=
             left[static_cast<size_t>(groups)] * 1.1 + 1 / static_cast<double>(sampled)) {
    --last_;
  }
  const double rest = std::max(static_cast<double>(k_) / n, left[static_cast<size_t>(last_)] / 20);
  const double vector_bytes = static_cast<double>(store_.vector_bytes(request_.levels)) /
                              static_cast<double>(store_.items());
  const auto listed = [](double bytes) { return kListedCost * (std::ceil(bytes / 64) * 64 + 64); };
  double least = vector_bytes;
  for (int read = 1; read <= last_; ++read) {
    double cost = CodeBytes(0, read) + static_cast<double>(store_.bounds4().row_bytes) + kItemCost;
    for (int g = read; g < last_; ++g) {
      cost += left[static_cast<size_t>(g)] * listed(CodeBytes(g, g + 1));
    }
    cost += left[static_cast<size_t>(last_)] * listed(CodeBytes(0, last_));
    cost += rest * listed(vector_bytes);
    if (cost < least) {
      least = cost;
      read_ = read;
    }
  }
  if (read_ == 0) return;
  // Aim at a few times k items, and at enough of the sample for the aim to be steady.
  const int64_t seeds =
      std::max<int64_t>(4, std::llround(3.0 * static_cast<double>(k_) / per_sample));
  seed_bound_ = Reached(bounds[static_cast<size_t>(read_) - 1], seeds);
  const size_t items = static_cast<size_t>(store_.items());
  if (scratch_.sums.size() != items) {
    scratch_.sums = AlignedArray<float>(items);
    scratch_.bounds = AlignedArray<float>(items);
  }
}

void Funnel::ScanBlock(int64_t begin, int64_t count) {
  float* const sums = scratch_.sums.data() + begin;
  float* const bounds = scratch_.bounds.data() + begin;
  std::fill_n(sums, count, query_->start());
  for (int g = 0; g < read_; ++g) {
    AddNibbleDots(store_.groups()[static_cast<size_t>(g)].high_rows(), begin, count,
                  query_->high(g), sums);
  }
  const NestedQuery::Slack& slack = query_->slack4(read_);
  float slacks[kBlock];
  std::fill_n(slacks, count, slack.constant);
  AddByteDots(store_.bounds4(), begin, count, slack.rows4(), slacks);
  MultiplyBounds(store_.scales() + begin, sums, slacks, count, bounds);
  if (filter_ != nullptr) {
    for (int64_t i = 0; i < count; ++i) {
      if (!filter_->Allows(begin + i + 1)) bounds[i] = -std::numeric_limits<float>::infinity();
    }
  }
}

std::vector<int32_t> Funnel::SelectRows(float threshold) const {
  const int64_t n = store_.items();
  std::vector<int32_t> rows;
  std::vector<int32_t> selected(kBlock + 64);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t found =
        SelectNotBelow(scratch_.bounds.data() + begin, std::min(kBlock, n - begin), threshold,
                       static_cast<int32_t>(begin), selected.data());
    rows.insert(rows.end(), selected.begin(), selected.begin() + found);
  }
  return rows;
}

void Funnel::ScoreSeeds() {
  std::vector<int32_t> rows = SelectRows(std::max(seed_bound_, kLowest));
  const size_t wanted = static_cast<size_t>(2 * k_ + 32);
  if (rows.size() > wanted) {
    const auto estimate = [&](int32_t row) { return store_.scales()[row] * scratch_.sums[row]; };
    std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(wanted), rows.end(),
                     [&](int32_t a, int32_t b) { return estimate(a) > estimate(b); });
    rows.resize(wanted);
    std::sort(rows.begin(), rows.end());
  }
  for (const int32_t row : rows) Score(row);
  scored_ = std::move(rows);
}

void Funnel::Select() {
  rows_ = SelectRows(query_->PruneBelow(best_.threshold()));
  sums_.resize(rows_.size());
  bounds_.resize(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    sums_[i] = scratch_.sums[static_cast<size_t>(rows_[i])];
    bounds_[i] = scratch_.bounds[static_cast<size_t>(rows_[i])];
  }
  stats_.after_scan = static_cast<int64_t>(rows_.size());
}

void Funnel::ReadListed(int begin, int end) {
  const int64_t count = static_cast<int64_t>(rows_.size());
#pragma omp parallel for schedule(static) if (count >= kItemsWorthThreads)
  for (int64_t from = 0; from < count; from += kBlock) {
    const int64_t here = std::min(kBlock, count - from);
    for (int g = begin; g < end; ++g) {
      AddNibbleDotsAt(store_.groups()[static_cast<size_t>(g)].high_rows(), rows_.data() + from,
                      here, query_->high(g), sums_.data() + from);
    }
  }
  stats_.bytes_read += static_cast<int64_t>(CodeBytes(begin, end)) * count;
}

void Funnel::ReadListedFinely(int end) {
  const int64_t count = static_cast<int64_t>(rows_.size());
#pragma omp parallel for schedule(static) if (count >= kItemsWorthThreads)
  for (int64_t from = 0; from < count; from += kBlock) {
    const int64_t here = std::min(kBlock, count - from);
    for (int g = 0; g < end; ++g) {
      const NestedStore::Group& codes = store_.groups()[static_cast<size_t>(g)];
      const int32_t* const rows = rows_.data() + from;
      float* const sums = sums_.data() + from;
      AddNibbleDotsAt(codes.low_rows(), rows, here, query_->low(g), sums);
      AddNibbleDotsAt(codes.high_rows(), rows, here, query_->fine(g), sums);
    }
  }
  stats_.bytes_read += 2 * static_cast<int64_t>(CodeBytes(0, end)) * count;
}

void Funnel::DropListed(const NestedQuery::Slack& slack) {
  const int64_t count = static_cast<int64_t>(rows_.size());
  std::vector<float> slacks(rows_.size(), slack.constant);
  std::vector<float> scales(rows_.size());
  AddByteDotsAt(store_.bounds4(), rows_.data(), count, slack.rows4(), slacks.data());
  if (!slack.weights8.empty()) {
    AddByteDotsAt(store_.bounds8(), rows_.data(), count, slack.rows8(), slacks.data());
  }
  for (size_t i = 0; i < rows_.size(); ++i) scales[i] = store_.scales()[rows_[i]];
  MultiplyBounds(scales.data(), sums_.data(), slacks.data(), count, bounds_.data());
  std::vector<int32_t> kept(rows_.size() + 64);
  kept.resize(static_cast<size_t>(SelectNotBelow(
      bounds_.data(), count, query_->PruneBelow(best_.threshold()), 0, kept.data())));
  KeepAt(rows_, kept);
  KeepAt(sums_, kept);
  KeepAt(bounds_, kept);
  stats_.bytes_read += store_.bounds4().row_bytes * count;
}

// The best by estimate: a higher k-th score drops more.
void Funnel::ScoreBestListed() {
  const size_t wanted = static_cast<size_t>(k_ + 16);
  if (rows_.size() < 4 * wanted) return;
  std::vector<int32_t> at(rows_.size());
  for (size_t i = 0; i < at.size(); ++i) at[i] = static_cast<int32_t>(i);
  const auto estimate = [&](int32_t i) { return store_.scales()[rows_[i]] * sums_[i]; };
  std::nth_element(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(wanted), at.end(),
                   [&](int32_t a, int32_t b) { return estimate(a) > estimate(b); });
  std::vector<int32_t> scored;
  for (size_t i = 0; i < wanted; ++i) {
    const int32_t row = rows_[at[i]];
    if (std::binary_search(scored_.begin(), scored_.end(), row)) continue;
    Score(row);
    scored.push_back(row);
  }
  scored_.insert(scored_.end(), scored.begin(), scored.end());
  std::sort(scored_.begin(), scored_.end());
}

void Funnel::ScoreListed() {
  std::vector<int32_t> order(rows_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  const auto rank = [&](int32_t i) {
    return std::isnan(bounds_[i]) ? std::numeric_limits<float>::infinity() : bounds_[i];
  };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  const int64_t most = options_.most_scored > 0 ? std::max(options_.most_scored, k_)
                                                : std::numeric_limits<int64_t>::max();
  for (const int32_t i : order) {
    if (rank(i) < query_->PruneBelow(best_.threshold()) || stats_.scored >= most) break;
    if (!std::binary_search(scored_.begin(), scored_.end(), rows_[i])) Score(rows_[i]);
  }
}

SearchResult Funnel::Finish() {
  if (filter_ != nullptr && filter_->few().has_value()) {
    ScoreFew(*filter_->few());
  } else if (read_ == 0) {
    ScoreAll();
  } else {
    stats_.groups_read = read_;
    stats_.bytes_read +=
        static_cast<int64_t>(CodeBytes(0, read_) + sizeof(float)) * store_.items() +
        store_.bounds4().row_bytes * store_.items();
    ScoreSeeds();
    Select();
    for (int g = read_; g < last_; ++g) {
      ReadListed(g, g + 1);
      DropListed(query_->slack4(g + 1));
    }
    stats_.after_codes = static_cast<int64_t>(rows_.size());
    ScoreBestListed();
    ReadListedFinely(last_);
    DropListed(query_->slack8(last_));
    ScoreListed();
    stats_.bytes_read += stats_.scored * store_.vector_bytes(request_.levels) / store_.items();
  }
  SearchResult result;
  result.items = best_.Take();
  result.exact = read_ == 0 || (options_.share >= 1 && options_.most_scored == 0);
  result.rescored = stats_.scored;
  return result;
}

}  // namespace

std::vector<SearchResult> NestedSearchBatch(const NestedStore& store,
                                            std::span<const NestedSearchRequest> requests,
                                            const NestedSearchOptions& options,
                                            NestedScratch& scratch,
                                            std::span<NestedSearchStats> stats) {
  const int64_t count = static_cast<int64_t>(requests.size());
  const int64_t n = store.items();
  if (scratch.queries.size() < requests.size()) scratch.queries.resize(requests.size());
  std::vector<SearchResult> results(requests.size());
  // Blocks of queries share what they read; each thread has a block at a time.
  constexpr int64_t kMostShared = 16;
  const int64_t threads = omp_in_parallel() != 0 ? 1 : omp_get_max_threads();
  const int64_t shared = std::clamp<int64_t>((count + threads - 1) / threads, 1, kMostShared);
#pragma omp parallel for schedule(dynamic) if (count > 1)
  for (int64_t from = 0; from < count; from += shared) {
    const int64_t end = std::min(count, from + shared);
    std::vector<std::unique_ptr<Funnel>> funnels;
    for (int64_t i = from; i < end; ++i) {
      funnels.push_back(
          std::make_unique<Funnel>(store, requests[i], options, scratch.queries[i], stats[i]));
      funnels.back()->Plan();
    }
#pragma omp parallel for schedule(static) if (n >= kItemsWorthThreads)
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t here = std::min(kBlock, n - begin);
      for (const auto& funnel : funnels) {
        if (funnel->reads_all_items()) funnel->ScanBlock(begin, here);
      }
    }
    for (int64_t i = from; i < end; ++i) results[i] = funnels[i - from]->Finish();
  }
  return results;
}

}  // namespace nestrec

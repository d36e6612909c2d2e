#include "index/nested_funnel.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>

#include "index/first_exception.h"
#include "index/float_scan.h"
#include "index/nested_kernels.h"

namespace nestrec {
namespace {

constexpr int64_t kBlock = Funnel::kBlock;
constexpr int64_t kItemsWorthThreads = Funnel::kItemsWorthThreads;
constexpr int64_t kItemsWorthScores = 1 << 16;
constexpr int64_t kRun = NestedScratch::kRun;
constexpr int64_t kSampleRun = 32;  // neighbours in the sample
constexpr int64_t kSeedRuns = 3;    // for each of k items, where there is no sample
constexpr float kLowest = std::numeric_limits<float>::lowest();
// What reading one cache line of a listed item costs, of reading it in passing.
constexpr double kListedCost = 3.0;
// Bytes for which a core writes and reads back sums and bounds of an item, and selects by them.
constexpr double kItemCost = 40;

template <typename T>
void KeepAt(std::vector<T>& values, const std::vector<int32_t>& kept) {
  for (size_t i = 0; i < kept.size(); ++i) values[i] = values[static_cast<size_t>(kept[i])];
  values.resize(kept.size());
}

}  // namespace

void AddStep(const NestedCodes& all, const NestedQuery& query, const NestedQuery::Step& step,
             int64_t begin, int64_t count, float* sums) {
  const NestedCodes::Group& codes = all.groups()[static_cast<size_t>(step.group)];
  if (step.low) {
    AddNibbleDots(codes.low_rows(), begin, count, query.low(step.group), sums);
    AddNibbleDots(codes.high_rows(), begin, count, query.fine(step.group), sums);
  } else {
    AddNibbleDots(codes.high_rows(), begin, count, query.high(step.group), sums);
  }
}

// The slack of `count` items from `begin` after so many steps.
void Funnel::AddBounds(int steps, int64_t begin, int64_t count, float* slacks) const {
  const NestedQuery::Slack& slack = query_->slack(steps);
  std::fill_n(slacks, count, slack.constant);
  AddByteDots(codes_.bounds(), begin, count, slack.rows(), slacks);
}

void Funnel::Score(std::span<const int32_t> rows) {
  constexpr size_t kAtOnce = 256;
  double sums[kAtOnce];
  float scores[kAtOnce];
  for (size_t from = 0; from < rows.size(); from += kAtOnce) {
    const auto some = rows.subspan(from, std::min(kAtOnce, rows.size() - from));
    codes_.ScoresAt(request_.query, some, sums, scores);
    for (size_t i = 0; i < some.size(); ++i) best_.Offer(some[i] + 1, scores[i]);
  }
  stats_.scored += static_cast<int64_t>(rows.size());
}

void Funnel::ScoreFew(std::span<const int32_t> items) {
  std::vector<int32_t> rows;
  for (const int32_t item : items) rows.push_back(item - 1);
  Score(rows);
}

void Funnel::ScoreAll() {
  stats_.plain = true;
  const int64_t n = codes_.items();
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  const int64_t threads = n >= kItemsWorthThreads ? omp_get_max_threads() : 1;
  std::vector<TopItems> best(static_cast<size_t>(threads), best_);
  FirstException first;
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    TopItems& own = best[static_cast<size_t>(omp_get_thread_num())];
    double sums[kBlock];
    float scores[kBlock];
    int32_t selected[kBlock + 64];
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * kBlock;
      const int64_t count = std::min(kBlock, n - begin);
      codes_.Scores(request_.query, begin, count, sums, scores);
      const int64_t found =
          SelectNotBelow(scores, count, own.threshold(), static_cast<int32_t>(begin), selected);
      first.Guard([&] {
        for (int64_t i = 0; i < found; ++i) {
          const float score = scores[selected[i] - begin];
          if (score >= own.threshold() && Allows(selected[i])) own.Offer(selected[i] + 1, score);
        }
      });
    }
  }
  first.Rethrow();
  for (const TopItems& own : best) best_.OfferAll(own);
  const int64_t scored = n;
  stats_.scored += scored;
  stats_.bytes_read += codes_.vector_bytes();
}

bool Funnel::scores_all_items() const {
  return read_ == 0 && !(filter_ != nullptr && filter_->few().has_value()) &&
         FloatScanHolds(codes_, request_.query);
}

void Funnel::SetScanned(int64_t scored, const ReducedView* view) {
  scanned_ = true;
  stats_.plain = true;
  stats_.reduced = view != nullptr;
  stats_.scored += scored;
  stats_.bytes_read += view != nullptr ? view->scanned_bytes() : codes_.vector_bytes();
}

void Funnel::Plan(std::span<const double> weights) {
  const int64_t allowed = filter_ != nullptr ? filter_->allowed() : codes_.items();
  if (filter_ != nullptr && filter_->few().has_value()) return;
  const bool zero = std::all_of(request_.query.begin(), request_.query.end(),
                                [](float value) { return value == 0; });
  // Where more than a few of the items are asked for, nothing can be dropped early.
  if (!options_.funnel || !request_.funnel || codes_.groups().empty() || zero || k_ > allowed / 8)
    return;
  query_.emplace(codes_, request_.query, weights, options_.share);
  if (TakeGivenPlan(allowed)) return;
  std::vector<std::vector<float>> bounds;
  std::vector<float> estimates;
  ReadSample(bounds, estimates);
  if (estimates.empty()) return;  // too few allowed items to tell
  Choose(bounds, estimates);
}

bool Funnel::TakeGivenPlan(int64_t allowed) {
  const int64_t n = codes_.items();
  const int64_t runs = (n + kRun - 1) / kRun;
  const NestedPlan& plan = options_.plan.for_all > 0 ? options_.plan : request_.plan;
  if (plan.for_all == 0 || 2 * allowed < n || kSeedRuns * k_ > runs / 2) return false;
  const int steps = static_cast<int>(query_->steps().size());
  read_ = std::min(plan.for_all, steps);
  last_ = std::clamp(plan.for_left, read_, steps);
  MakeRoom();
  return true;
}

void Funnel::MakeRoom() {
  const size_t items = static_cast<size_t>(codes_.items());
  if (scratch_.sums.size() == items) return;
  scratch_.sums = AlignedArray<float>(items);
  scratch_.bounds = AlignedArray<float>(items);
  scratch_.highest = AlignedArray<float>((items + kRun - 1) / kRun);
}

// What the best items of a few times k runs reach, so that at least as many items do.
float Funnel::SeedBoundOfRuns() const {
  const int64_t runs = (codes_.items() + kRun - 1) / kRun;
  std::vector<float> highest(scratch_.highest.data(), scratch_.highest.data() + runs);
  // Infinity stands for items that are always looked at, of which no goal comes.
  std::erase(highest, std::numeric_limits<float>::infinity());
  if (highest.empty()) return kLowest;
  const auto wanted = std::min(highest.size(), static_cast<size_t>(kSeedRuns * k_));
  const auto at = highest.begin() + static_cast<std::ptrdiff_t>(wanted - 1);
  std::nth_element(highest.begin(), at, highest.end(), std::greater<>());
  return *at;
}

// Bounds after each step, and estimates, of the sample's allowed items.
void Funnel::ReadSample(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates) {
  const int64_t n = codes_.items();
  const int64_t runs = std::min(n / kSampleRun, std::max<int64_t>(16, n / 256 / kSampleRun));
  const auto steps = query_->steps();
  bounds.resize(steps.size());
  float sums[kSampleRun], slacks[kSampleRun], reached[kSampleRun];
  for (int64_t run = 0; run < runs; ++run) {
    const int64_t begin = run * (n / runs);
    std::fill_n(sums, kSampleRun, query_->start());
    for (size_t step = 0; step < steps.size(); ++step) {
      AddStep(codes_, *query_, steps[step], begin, kSampleRun, sums);
      AddBounds(static_cast<int>(step) + 1, begin, kSampleRun, slacks);
      MultiplyBounds(codes_.scales() + begin, sums, slacks, kSampleRun, reached);
      for (int64_t i = 0; i < kSampleRun; ++i) {
        if (Allows(begin + i)) bounds[step].push_back(reached[i]);
      }
    }
    for (int64_t i = 0; i < kSampleRun; ++i) {
      if (Allows(begin + i)) estimates.push_back(codes_.scales()[begin + i] * sums[i]);
    }
  }
}

// The value that `count` of them reach.
float Reached(std::vector<float>& values, int64_t count) {
  // NaN stands for what is always looked at: before all else.
  const auto above = [](float a, float b) { return std::isnan(a) ? !std::isnan(b) : a > b; };
  const int64_t at = std::clamp<int64_t>(count - 1, 0, static_cast<int64_t>(values.size()) - 1);
  std::nth_element(values.begin(), values.begin() + at, values.end(), above);
  return values[static_cast<size_t>(at)];
}

void Funnel::Choose(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates) {
  const int64_t sampled = static_cast<int64_t>(estimates.size());
  const double n_all = static_cast<double>(codes_.items());
  const double n = static_cast<double>(filter_ != nullptr ? filter_->allowed() : codes_.items());
  const double per_sample = n / static_cast<double>(sampled);
  const float goal = Reached(estimates, std::llround(static_cast<double>(k_) / per_sample));
  const int steps = static_cast<int>(query_->steps().size());
  std::vector<double> left(static_cast<size_t>(steps) + 1, 1.0);  // shares, by steps read
  for (int step = 0; step < steps; ++step) {
    const auto& reached = bounds[static_cast<size_t>(step)];
    left[static_cast<size_t>(step) + 1] =
        static_cast<double>(std::count_if(reached.begin(), reached.end(),
                                          [&](float bound) { return !(bound < goal); })) /
        static_cast<double>(sampled);
  }
  const double vector_bytes = static_cast<double>(codes_.vector_bytes()) / n_all;
  const auto listed = [](double bytes) { return kListedCost * (std::ceil(bytes / 64) * 64 + 32); };
  // What comes after so many steps for all items, for one item: to read on, or to score.
  std::vector<double> after(left.size());
  last_ = steps;
  after[static_cast<size_t>(steps)] = left[static_cast<size_t>(steps)] * listed(vector_bytes);
  for (int step = steps - 1; step >= 0; --step) {
    const double share = left[static_cast<size_t>(step)];
    const double score = share * listed(vector_bytes);
    const double read = share * (listed(StepBytes(query_->steps()[static_cast<size_t>(step)])) +
                                 kListedCost * BoundBytes()) +
                        after[static_cast<size_t>(step) + 1];
    after[static_cast<size_t>(step)] = std::min(score, read);
    if (score <= read) last_ = step;
  }
  double least = vector_bytes;
  double codes = kItemCost;
  for (int step = 1; step <= steps; ++step) {
    const NestedQuery::Step& next = query_->steps()[static_cast<size_t>(step) - 1];
    codes += static_cast<double>(group(next).row_bytes);
    const double cost = codes + BoundBytes() + after[static_cast<size_t>(step)];
    if (cost < least) {
      least = cost;
      read_ = step;
    }
  }
  last_ = std::max(last_, read_);
  if (read_ == 0) return;
  // Aim at a few times k items, and at enough of the sample for the aim to be steady.
  const int64_t seeds =
      std::max<int64_t>(4, std::llround(3.0 * static_cast<double>(k_) / per_sample));
  seed_bound_ = Reached(bounds[static_cast<size_t>(read_) - 1], seeds);
  MakeRoom();
}

void Funnel::ScanBlock(int64_t begin, int64_t count) {
  float* const sums = scratch_.sums.data() + begin;
  float* const bounds = scratch_.bounds.data() + begin;
  std::fill_n(sums, count, query_->start());
  for (int step = 0; step < read_; ++step) {
    AddStep(codes_, *query_, query_->steps()[static_cast<size_t>(step)], begin, count, sums);
  }
  float slacks[kBlock];
  AddBounds(read_, begin, count, slacks);
  MultiplyBounds(codes_.scales() + begin, sums, slacks, count, bounds);
  if (filter_ != nullptr) {
    filter_->ForEachForbidden(begin + 1, begin + count + 1, [&](int64_t item) {
      bounds[item - 1 - begin] = -std::numeric_limits<float>::infinity();
    });
  }
  for (int64_t i = 0; i < count; i += kRun) {
    scratch_.highest[(begin + i) / kRun] = Highest(bounds + i, std::min(kRun, count - i));
  }
}

std::vector<int32_t> Funnel::SelectRows(float threshold) const {
  const int64_t n = codes_.items();
  std::vector<int32_t> rows;
  int32_t selected[kRun + 64];
  for (int64_t begin = 0; begin < n; begin += kRun) {
    if (scratch_.highest[begin / kRun] < threshold) continue;
    const int64_t found = SelectNotBelow(scratch_.bounds.data() + begin, std::min(kRun, n - begin),
                                         threshold, static_cast<int32_t>(begin), selected);
    rows.insert(rows.end(), selected, selected + found);
  }
  return rows;
}

// Of the items with the highest estimates: among many items they are scored, for the best goal that
// there is; among few that would take longer than the scan, and they are read to the end instead,
// for the k-th of what they reach at least.
void Funnel::SetGoal() {
  if (!seed_bound_.has_value()) seed_bound_ = SeedBoundOfRuns();
  std::vector<int32_t> rows = SelectRows(std::max(*seed_bound_, kLowest));
  const auto estimate = [&](int32_t row) { return codes_.scales()[row] * scratch_.sums[row]; };
  const auto higher = [&](int32_t a, int32_t b) { return estimate(a) > estimate(b); };
  std::erase_if(rows, [&](int32_t row) { return std::isnan(estimate(row)); });
  const size_t wanted = static_cast<size_t>(2 * k_ + 32);
  if (rows.size() > wanted) {
    std::nth_element(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(wanted), rows.end(),
                     higher);
    rows.resize(wanted);
  }
  if (static_cast<int64_t>(rows.size()) < k_) return;
  if (codes_.items() >= kItemsWorthScores && options_.most_scored == 0) {
    Score(rows);
    std::sort(rows.begin(), rows.end());
    scored_ = std::move(rows);
    return;
  }
  rows_ = std::move(rows);
  sums_.clear();
  for (const int32_t row : rows_) sums_.push_back(scratch_.sums[row]);
  const int steps = static_cast<int>(query_->steps().size());
  for (int step = read_; step < steps; ++step) {
    ReadListed(query_->steps()[static_cast<size_t>(step)]);
  }
  RaiseGoal(steps);
}

// The k-th highest of the lower bounds of what is listed, after so many steps.
void Funnel::RaiseGoal(int steps) {
  if (static_cast<int64_t>(rows_.size()) < k_) return;
  const NestedQuery::Slack& slack = query_->slack(steps);
  std::vector<float> slacks(rows_.size(), slack.constant);
  AddByteDotsAt(codes_.bounds(), rows_.data(), static_cast<int64_t>(rows_.size()), slack.rows(),
                slacks.data());
  std::vector<float> lower;
  for (size_t i = 0; i < rows_.size(); ++i) {
    // A share of the slack is a guess, which must not shut out too many: here it counts in full.
    const float bound = codes_.scales()[rows_[i]] * (sums_[i] - slacks[i] / options_.share);
    lower.push_back(std::isnan(bound) ? kLowest : bound);
  }
  std::nth_element(lower.begin(), lower.begin() + (k_ - 1), lower.end(), std::greater<>());
  goal_ = std::max(goal_, query_->Reaches(lower[static_cast<size_t>(k_ - 1)]));
}

void Funnel::Select() {
  rows_ = SelectRows(query_->PruneBelow(goal()));
  sums_.resize(rows_.size());
  bounds_.resize(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    sums_[i] = scratch_.sums[static_cast<size_t>(rows_[i])];
    bounds_[i] = scratch_.bounds[static_cast<size_t>(rows_[i])];
  }
  stats_.after_scan = static_cast<int64_t>(rows_.size());
}

void Funnel::ReadListed(const NestedQuery::Step& step) {
  const NestedCodes::Group& codes = group(step);
  const int64_t count = static_cast<int64_t>(rows_.size());
#pragma omp parallel for schedule(static) if (count >= kItemsWorthThreads)
  for (int64_t from = 0; from < count; from += kBlock) {
    const int64_t here = std::min(kBlock, count - from);
    const int32_t* const rows = rows_.data() + from;
    float* const sums = sums_.data() + from;
    if (step.low) {
      AddNibbleDotsAt(codes.low_rows(), rows, here, query_->low(step.group), sums);
      AddNibbleDotsAt(codes.high_rows(), rows, here, query_->fine(step.group), sums);
    } else {
      AddNibbleDotsAt(codes.high_rows(), rows, here, query_->high(step.group), sums);
    }
  }
  stats_.bytes_read += static_cast<int64_t>(StepBytes(step)) * count;
}

void Funnel::DropListed(const NestedQuery::Slack& slack) {
  const int64_t count = static_cast<int64_t>(rows_.size());
  std::vector<float> slacks(rows_.size(), slack.constant);
  std::vector<float> scales(rows_.size());
  AddByteDotsAt(codes_.bounds(), rows_.data(), count, slack.rows(), slacks.data());
  for (size_t i = 0; i < rows_.size(); ++i) scales[i] = codes_.scales()[rows_[i]];
  MultiplyBounds(scales.data(), sums_.data(), slacks.data(), count, bounds_.data());
  std::vector<int32_t> kept(rows_.size() + 64);
  kept.resize(static_cast<size_t>(
      SelectNotBelow(bounds_.data(), count, query_->PruneBelow(goal()), 0, kept.data())));
  KeepAt(rows_, kept);
  KeepAt(sums_, kept);
  KeepAt(bounds_, kept);
  stats_.bytes_read += codes_.bounds().row_bytes * count;
}

void Funnel::ScoreListed() {
  struct Listed {
    float bound;
    int32_t row;
  };
  if (rows_.size() > static_cast<size_t>(k_ + k_ / 4)) RaiseGoal(last_);
  std::vector<Listed> listed;
  const float least = query_->PruneBelow(goal());
  for (size_t i = 0; i < rows_.size(); ++i) {
    const float bound =
        std::isnan(bounds_[i]) ? std::numeric_limits<float>::infinity() : bounds_[i];
    if (bound < least || std::binary_search(scored_.begin(), scored_.end(), rows_[i])) continue;
    listed.push_back({bound, rows_[i]});
  }
  std::sort(listed.begin(), listed.end(),
            [](const Listed& a, const Listed& b) { return a.bound > b.bound; });
  if (options_.most_scored > 0) {
    const int64_t most = std::max(options_.most_scored, k_);
    listed.resize(std::min(listed.size(), static_cast<size_t>(most)));
  }
  // The first k at once, then a few at a time: each may end the search.
  constexpr size_t kAtOnce = 16;
  std::vector<int32_t> rows;
  for (size_t from = 0; from < listed.size();) {
    const size_t most = from == 0 ? std::max(static_cast<size_t>(k_), kAtOnce) : kAtOnce;
    const float limit = query_->PruneBelow(goal());
    rows.clear();
    while (from < listed.size() && rows.size() < most && !(listed[from].bound < limit)) {
      rows.push_back(listed[from].row);
      ++from;
    }
    if (rows.empty()) break;
    Score(rows);
  }
}

SearchResult Funnel::Finish() {
  if (filter_ != nullptr && filter_->few().has_value()) {
    ScoreFew(*filter_->few());
  } else if (read_ == 0) {
    if (!scanned_) ScoreAll();
  } else {
    stats_.steps_read = read_;
    stats_.steps_left = last_;
    stats_.steps = static_cast<int>(query_->steps().size());
    double bytes = sizeof(float) + BoundBytes();
    for (const NestedQuery::Step& step : query_->steps().first(static_cast<size_t>(read_))) {
      bytes += static_cast<double>(group(step).row_bytes);
    }
    stats_.bytes_read += static_cast<int64_t>(bytes) * codes_.items();
    SetGoal();
    Select();
    for (int step = read_; step < last_; ++step) {
      ReadListed(query_->steps()[static_cast<size_t>(step)]);
      DropListed(query_->slack(step + 1));
    }
    stats_.after_codes = static_cast<int64_t>(rows_.size());
    ScoreListed();
    stats_.bytes_read += stats_.scored * codes_.vector_bytes() / codes_.items();
  }
  SearchResult result;
  result.items = best_.Take();
  result.exact = read_ == 0 || (options_.share >= 1 && options_.most_scored == 0);
  result.rescored = stats_.scored;
  return result;
}

}  // namespace nestrec

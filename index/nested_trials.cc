// How a nested index chooses, width by width, what answers it: by trials, when it is made.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <limits>
#include <utility>

#include "base/guard.h"
#include "base/status_macros.h"
#include "index/nested_index.h"

namespace nestrec {
namespace {

// What is asked for in trials: k below and from kMany on.
constexpr int64_t kTriedCounts[] = {10, 100};
// Queries in trials: one, a small batch, and as many as share what is read.
constexpr int64_t kTriedBatches[] = {1, 8, 32};
// Up to so many the sample of a query (index/nested_funnel.cc) is a larger share of them than it is
// of more.
constexpr int64_t kFewItems = 1 << 17;
// A view in fewer columns must once take at most this share of the next best way's time, for its
// memory.
constexpr double kWorthMemory = 0.85;

}  // namespace

absl::StatusOr<double> NestedIndex::TimeOf(int levels, int64_t example, int64_t batch, size_t many,
                                           Way way) const {
  const int64_t examples = static_cast<int64_t>(examples_.size()) / sizes().max_dim();
  const Choices& choices = ChoicesOf(levels);
  std::vector<NestedCodesRequest> requests;
  for (int64_t i = 0; i < batch; ++i) {
    requests.push_back({.codes = &codes(levels),
                        .query = Example((example + i) % examples, levels),
                        .options = {.k = kTriedCounts[many]},
                        .funnel = way == Way::kFunnel,
                        .plan = choices.plans[many],
                        .reduced = way == Way::kView ? choices.view.get() : nullptr});
  }
  std::vector<NestedSearchStats> stats(requests.size());
  return Guard("nested search", [&]() -> absl::StatusOr<double> {
    std::unique_ptr<NestedScratch> scratch = TakeScratch();
    const auto start = std::chrono::steady_clock::now();
    SearchCodes(requests, {}, *scratch, std::span(stats));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    GiveBack(std::move(scratch));
    return took.count();
  });
}

// A few examples are answered each way, in turns. The shortest time of each counts: others may have
// been in its way. Trials that take long say enough after fewer turns.
absl::Status NestedIndex::Try(int levels, size_t batch, size_t many, double& spent) {
  constexpr int64_t kRounds = 4;
  constexpr double kEnough = 0.2;  // seconds
  Choices& choices = choices_[static_cast<size_t>(levels) - 1];
  const int64_t examples = static_cast<int64_t>(examples_.size()) / sizes().max_dim();
  const int64_t queries = std::min(kTriedBatches[batch], MostTogether());
  std::vector<Way> ways = {Way::kVectors, Way::kFunnel};
  if (choices.view != nullptr) ways.push_back(Way::kView);
  std::array<double, 3> seconds;
  seconds.fill(std::numeric_limits<double>::infinity());
  double all = 0;
  for (int64_t round = 0; round < kRounds && all < kEnough; ++round) {
    for (const Way way : ways) {
      NESTREC_ASSIGN_OR_RETURN(const double took, TimeOf(levels, round * examples / kRounds,
                                                         std::min(queries, examples), many, way));
      double& shortest = seconds[static_cast<size_t>(way)];
      shortest = std::min(shortest, took);
      all += took;
    }
  }
  spent += all;
  const double vectors = seconds[static_cast<size_t>(Way::kVectors)];
  const double funnel = seconds[static_cast<size_t>(Way::kFunnel)];
  const double view = seconds[static_cast<size_t>(Way::kView)];
  choices.funnel[batch][many] = funnel < vectors;
  choices.reduced[batch][many] = view < std::min(vectors, funnel);
  choices.scans_view[batch][many] = view < vectors;
  choices.worth_memory = choices.worth_memory || view < kWorthMemory * std::min(vectors, funnel);
  return absl::OkStatus();
}

absl::StatusOr<NestedPlan> NestedIndex::UsualPlan(int levels, int64_t k) const {
  constexpr int64_t kMostAsked = 15;
  const int64_t given = static_cast<int64_t>(examples_.size()) / sizes().max_dim();
  const int64_t asked = std::min(kMostAsked, given);
  std::vector<int> for_all;
  std::vector<int> for_left;
  for (int64_t i = 0; i < asked; ++i) {
    NestedSearchStats stats;
    NESTREC_RETURN_IF_ERROR(
        Search(Example(i * given / asked, levels), levels, {.k = k}, {}, &stats).status());
    for_all.push_back(stats.steps_read);
    for_left.push_back(stats.steps_left);
  }
  if (asked == 0) return NestedPlan();
  const auto middle = [](std::vector<int>& of) {
    std::nth_element(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2), of.end());
    return of[of.size() / 2];
  };
  return NestedPlan{.for_all = middle(for_all), .for_left = middle(for_left)};
}

// Where trials of a width take long, k that was not tried goes the way of the one that was; so do
// batches where there are so many items that working memory for as many queries is not held.
absl::Status NestedIndex::Measure(int levels) {
  constexpr double kMostSeconds = 1;
  Choices& choices = choices_[static_cast<size_t>(levels) - 1];
  for (const size_t many : {0, 1}) {
    if (items() > kFewItems) break;
    NESTREC_ASSIGN_OR_RETURN(choices.plans[many], UsualPlan(levels, kTriedCounts[many]));
  }
  // The first search gets its working memory from the system, which later ones do not.
  NESTREC_RETURN_IF_ERROR(TimeOf(levels, 0, 1, /*many=*/0, Way::kFunnel).status());
  const auto copy = [&](size_t batch, size_t many, size_t to_batch, size_t to_many) {
    for (Choices::Flags* const flags : {&choices.funnel, &choices.reduced, &choices.scans_view}) {
      (*flags)[to_batch][to_many] = (*flags)[batch][many];
    }
  };
  double spent = 0;
  for (const size_t many : {1, 0}) {
    for (const size_t batch : {0, 1, 2}) {
      if (batch > 0 && MostTogether() < kLargeBatch) {
        copy(0, many, batch, many);
      } else if (many == 0 && spent > kMostSeconds) {
        copy(batch, 1, batch, 0);
      } else {
        NESTREC_RETURN_IF_ERROR(Try(levels, batch, many, spent));
      }
    }
  }
  return absl::OkStatus();
}

// A view is kept where it is much the fastest for something, and then used for all that it is
// fastest for.
absl::Status NestedIndex::Choose(int levels, const Options& options) {
  if (codes(levels).groups().empty()) return absl::OkStatus();  // there is one way
  Choices& choices = choices_[static_cast<size_t>(levels) - 1];
  if (options.reduce) {
    // It is an extra: where there is no memory for it, searches do without.
    absl::StatusOr<std::unique_ptr<const ReducedView>> view =
        ReducedView::Create(codes(levels).vectors());
    if (view.ok()) choices.view = *std::move(view);
  }
  if (!options.measure) return absl::OkStatus();
  NESTREC_RETURN_IF_ERROR(Measure(levels));
  if (!choices.worth_memory) {
    choices.view = nullptr;
    choices.reduced = {};
  }
  return absl::OkStatus();
}

}  // namespace nestrec

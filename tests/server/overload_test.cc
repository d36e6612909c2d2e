// Queue, overload controller and width policy together, on simulated time: requests arrive at
// random, a fake engine takes a known time for each width, and what is answered in time is counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/random.h"
#include "server/batch_queue.h"
#include "server/overload_controller.h"
#include "server/policy.h"

namespace nestrec {
namespace {

constexpr absl::Duration kBudget = absl::Milliseconds(50);

class Request : public BatchItem {
 public:
  bool Cancelled() const override { return false; }
  void Drop(const absl::Status& /*why*/) override {}
};

class Simulation {
 public:
  struct Options {
    int workers = 2;
    size_t max_batch = 4;
    bool budgets = true;  // of requests; else they wait for as long as it takes
    absl::Duration budget = kBudget;
    bool holds = true;  // widths that time took
    size_t queue = 1024;
  };
  // What became of the requests that arrived in a stretch of time.
  struct Result {
    int64_t arrived = 0, refused = 0, dropped = 0, in_time = 0, late = 0;
    std::vector<double> latencies_ms;  // of what was answered
    std::vector<int> levels;           // in the order of the answers
    size_t longest_queue = 0;
    absl::Duration length;

    double goodput() const { return static_cast<double>(in_time) / absl::ToDoubleSeconds(length); }
    double P99() {
      std::sort(latencies_ms.begin(), latencies_ms.end());
      return latencies_ms.at(latencies_ms.size() * 99 / 100);
    }
    int changes() const {
      int changes = 0;
      for (size_t i = 1; i < levels.size(); ++i) changes += levels[i] != levels[i - 1];
      return changes;
    }
  };

  explicit Simulation(const Options& options)
      : options_(options),
        queue_({.lanes = {{.capacity = options.queue}},
                .max_batch = options.max_batch,
                .workers = options.workers}),
        controller_({.max_steps = sizes_.levels() - 1,
                     .workers = options.workers,
                     .clock = [this] { return now_; }}),
        running_(static_cast<size_t>(options.workers)) {}

  // Requests a second that the workers can answer at a width.
  double Capacity(int levels) const {
    return options_.workers / absl::ToDoubleSeconds(Cost(levels));
  }

  Result Run(absl::Duration length, double rate) {
    result_ = {.length = length};
    const Instant end = now_ + absl::ToChronoNanoseconds(length);
    Instant arrival = now_ + Gap(rate);
    for (;;) {
      StartWorkers();
      Instant next = std::min(arrival, end);
      for (const std::optional<Running>& running : running_) {
        if (running.has_value()) next = std::min(next, running->ends);
      }
      now_ = next;
      if (next == end) return result_;
      for (std::optional<Running>& running : running_) {
        if (running.has_value() && running->ends == now_) End(running);
      }
      if (next == arrival) {
        Arrive();
        arrival = now_ + Gap(rate);
      }
    }
  }

  int steps() { return controller_.steps(); }

 private:
  struct Running {
    std::vector<QueuedItem> items;
    std::vector<int> levels;
    OverloadController::Batch batch;
    Instant ends;
  };

  // 0.25, 0.5, 1 and 2 ms.
  static absl::Duration Cost(int levels) { return absl::Microseconds(125) * (1 << levels); }

  Instant::duration Gap(double rate) {
    return absl::ToChronoNanoseconds(absl::Seconds(-std::log(1 - random_.Uniform()) / rate));
  }

  void Arrive() {
    ++result_.arrived;
    const absl::Status status = queue_.Push(
        0, {.item = std::make_unique<Request>(),
            .accepted = now_,
            .deadline = options_.budgets ? now_ + absl::ToChronoNanoseconds(options_.budget)
                                         : Instant::max()});
    if (!status.ok()) ++result_.refused;
    result_.longest_queue = std::max(result_.longest_queue, queue_.size());
  }

  WidthDecision Decide(const QueuedItem& item, size_t batch, int narrowing, int held) const {
    std::vector<absl::Duration> costs;
    for (int levels = 1; levels <= sizes_.levels(); ++levels) {
      costs.push_back(static_cast<double>(batch) * Cost(levels));
    }
    WidthRequest request;
    if (options_.budgets) request.latency_budget = options_.budget;
    return *ChooseWidth(request, tiers_, {.sizes = &sizes_},
                        {.spent = Between(item.accepted, now_),
                         .narrowing = narrowing,
                         .costs = costs,
                         .usual_costs = costs,
                         .held_levels = held});
  }

  void StartWorkers() {
    for (std::optional<Running>& running : running_) {
      if (running.has_value()) continue;
      BatchQueue::Taken taken = queue_.Take(now_);
      result_.dropped += static_cast<int64_t>(taken.expired.size());
      if (taken.batch.empty()) continue;
      const int steps = controller_.steps();
      controller_.Began();
      running = Running{.items = std::move(taken.batch)};
      for (const QueuedItem& item : running->items) {
        const size_t batch = running->items.size();
        int held = WidthHold::kFree;
        if (options_.budgets && options_.holds) {
          held = hold_.Allow({.tier = 0, .time = options_.budget},
                             Decide(item, batch, steps, held).fit, now_);
        }
        const int levels = Decide(item, batch, steps, held).levels;
        running->levels.push_back(levels);
        running->batch.waited = std::max(running->batch.waited, Between(item.accepted, now_));
        running->batch.busy += Cost(levels);
        running->batch.busy_if_wider +=
            Cost(Decide(item, batch, std::max(0, steps - 1), held).levels);
      }
      running->ends = now_ + absl::ToChronoNanoseconds(running->batch.busy);
    }
  }

  void End(std::optional<Running>& running) {
    controller_.Ended(running->batch);
    queue_.Served(running->items.size(), running->batch.busy);
    for (size_t i = 0; i < running->items.size(); ++i) {
      const absl::Duration took = Between(running->items[i].accepted, now_);
      ++(took <= options_.budget ? result_.in_time : result_.late);
      result_.latencies_ms.push_back(absl::ToDoubleMilliseconds(took));
      result_.levels.push_back(running->levels[i]);
    }
    running.reset();
  }

  const Options options_;
  const NestedSizes sizes_ = *NestedSizes::Parse("8,16,32,64");
  const TierTable tiers_ = *TierTable::Create(
      {.tiers = {{.name = "only", .dim = 64, .index = {}, .min_dim = 8}}, .default_tier = ""},
      sizes_);
  Instant now_ = Instant(std::chrono::hours(1));
  BatchQueue queue_;
  OverloadController controller_;
  WidthHold hold_{1};
  std::vector<std::optional<Running>> running_;
  Random random_{42};
  Result result_;
};

TEST(OverloadTest, ALoadThatTheFullWidthBearsIsServedAtFullWidth) {
  Simulation simulation({});
  const auto result = simulation.Run(absl::Seconds(5), 0.6 * simulation.Capacity(4));
  EXPECT_EQ(result.changes(), 0);
  EXPECT_EQ(result.levels.front(), 4);
  EXPECT_EQ(result.refused + result.dropped + result.late, 0);
}

TEST(OverloadTest, AtThreeTimesWhatTheNarrowestBearsGoodputStaysAtThePeak) {
  for (const int workers : {1, 2, 8}) {
    for (const size_t batch : {1, 4, 16}) {
      Simulation simulation({.workers = workers, .max_batch = batch});
      simulation.Run(absl::Seconds(1), 0.5 * simulation.Capacity(4));
      auto result = simulation.Run(absl::Seconds(3), 3 * simulation.Capacity(1));
      EXPECT_GE(result.goodput(), 0.9 * simulation.Capacity(1)) << workers << " " << batch;
      EXPECT_LE(result.P99(), absl::ToDoubleMilliseconds(kBudget)) << workers << " " << batch;
      EXPECT_LE(result.longest_queue, 1024u);
      EXPECT_GT(result.refused, result.arrived / 2);
    }
  }
}

TEST(OverloadTest, WithoutBudgetsAFullQueueIsAllThatIsTurnedAway) {
  Simulation simulation({.budgets = false, .queue = 64});
  auto result = simulation.Run(absl::Seconds(3), 3 * simulation.Capacity(1));
  const double answered = static_cast<double>(result.in_time + result.late);
  EXPECT_GE(answered / 3, 0.9 * simulation.Capacity(1));
  EXPECT_EQ(result.longest_queue, 64u);
  EXPECT_EQ(result.dropped, 0);
}

TEST(OverloadTest, IsBackToFullWidthWithinASecondAfterTheLoadFalls) {
  for (const double rest : {0.0, 0.05, 0.5}) {
    Simulation simulation({});
    simulation.Run(absl::Seconds(2), 3 * simulation.Capacity(1));
    ASSERT_EQ(simulation.steps(), 3);
    if (rest > 0) {
      simulation.Run(absl::Seconds(1), rest * simulation.Capacity(4));
    } else {
      simulation.Run(absl::Seconds(1), 1e-6);
    }
    EXPECT_EQ(simulation.steps(), 0) << rest;
  }
}

TEST(OverloadTest, NarrowsWithinAFewTenthsOfASecondAndTurnsNobodyAwayThatANarrowerWidthBears) {
  Simulation simulation({});
  simulation.Run(absl::Milliseconds(300), 0.8 * simulation.Capacity(1));
  const auto result = simulation.Run(absl::Seconds(3), 0.8 * simulation.Capacity(1));
  EXPECT_EQ(result.refused + result.dropped + result.late, 0);
}

TEST(OverloadTest, AConstantLoadHasOneWidthAndDoesNotFlap) {
  for (const double share : {0.5, 0.9, 1.2, 1.5, 1.9, 2.5, 3.0, 3.5, 5.0, 6.0, 7.0, 20.0}) {
    Simulation simulation({.budgets = false});
    simulation.Run(absl::Seconds(3), share * simulation.Capacity(4));
    const auto result = simulation.Run(absl::Seconds(10), share * simulation.Capacity(4));
    // A queue at the edge of what a width bears may need another width once in a while.
    EXPECT_LE(result.changes(), 4) << share;
  }
}

// 10 ms are enough for a batch of four at full width, but not for a wait besides; 5 ms are not
// enough for it.
TEST(OverloadTest, ABudgetHasOneWidthAndDoesNotFlap) {
  for (const absl::Duration budget : {absl::Milliseconds(5), absl::Milliseconds(10)}) {
    for (const double share : {0.3, 0.9, 1.9, 3.0, 7.0, 20.0}) {
      int64_t in_time[2];
      for (const bool holds : {false, true}) {
        Simulation simulation({.budget = budget, .holds = holds});
        simulation.Run(absl::Seconds(2), share * simulation.Capacity(4));
        const auto result = simulation.Run(absl::Seconds(5), share * simulation.Capacity(4));
        in_time[holds] = result.in_time;
        if (holds) {
          EXPECT_LE(result.changes(), 6) << budget << " " << share;
        }
      }
      EXPECT_GE(in_time[true], 0.98 * static_cast<double>(in_time[false])) << budget << share;
    }
  }
}

TEST(OverloadTest, WithABudgetItIsBackToFullWidthWithinASecondToo) {
  for (const absl::Duration budget : {absl::Milliseconds(20), kBudget}) {
    Simulation simulation({.budget = budget});
    simulation.Run(absl::Seconds(2), 3 * simulation.Capacity(1));
    simulation.Run(absl::Seconds(1), 0.1 * simulation.Capacity(4));
    const auto result = simulation.Run(absl::Seconds(1), 0.1 * simulation.Capacity(4));
    EXPECT_EQ(result.levels.front(), 4) << budget;
    EXPECT_EQ(result.changes(), 0) << budget;
  }
}

}  // namespace
}  // namespace nestrec

#include "model/evaluator.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr int64_t kNotFound = std::numeric_limits<int64_t>::max();

struct Ranks {
  std::vector<std::vector<int64_t>> all;     // [size][user]
  std::vector<std::vector<int64_t>> masked;  // [size][user]
};

// Ranks the users [begin, end) of `users`.
absl::Status RankChunk(const Scorer& scorer, const Dataset& dataset, Split split,
                       std::span<const int64_t> users, size_t begin, size_t end, Ranks& ranks) {
  std::vector<std::vector<int32_t>> seen;
  std::vector<RankQuery> queries;
  seen.reserve(end - begin);  // queries point to them
  for (size_t u = begin; u < end; ++u) {
    const auto sequence = dataset.sequence(users[u]);
    const History history = HistoryOf(sequence, split);
    std::vector<int32_t>& items = seen.emplace_back(history.begin(), history.end());
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    queries.push_back({.history = history, .target = TargetOf(sequence, split), .seen = items});
  }
  const auto keep = [&](int size, std::span<const TargetRank> found) -> absl::Status {
    for (size_t u = begin; u < end; ++u) {
      const RankQuery& query = queries[u - begin];
      const TargetRank& rank = found[u - begin];
      if (std::isnan(rank.score)) {
        return absl::InternalError(absl::StrCat("the score of item ", query.target, " for user ",
                                                dataset.user_ids[static_cast<size_t>(users[u])],
                                                " is not a number"));
      }
      const bool target_seen =
          std::binary_search(query.seen.begin(), query.seen.end(), query.target);
      ranks.all[static_cast<size_t>(size)][u] = 1 + rank.before;
      ranks.masked[static_cast<size_t>(size)][u] =
          target_seen ? kNotFound : 1 + rank.before - rank.seen_before;
    }
    return absl::OkStatus();
  };
  return scorer.Rank(queries, dataset.items(), keep);
}

}  // namespace

absl::StatusOr<Evaluation> Evaluate(const Scorer& scorer, const Dataset& dataset,
                                    const EvaluationOptions& options) {
  std::vector<int64_t> users;
  int64_t positions = 0;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    const auto sequence = dataset.sequence(user);
    if (!IsEvaluated(sequence)) continue;
    users.push_back(user);
    positions += static_cast<int64_t>(HistoryOf(sequence, options.split).size());
  }
  if (users.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("none of the ", dataset.users(), " users has ", kMinEvaluatedEvents,
                     " events, which evaluation needs (history, validation and test item)"));
  }
  NESTREC_ASSIGN_OR_RETURN(
      const std::unique_ptr<const Scorer> prepared,
      Guard("evaluate", [&]() -> absl::StatusOr<std::unique_ptr<const Scorer>> {
        return scorer.PreparedFor(positions);
      }));
  const Scorer& ready = prepared != nullptr ? *prepared : scorer;
  const std::vector<int> dims = scorer.dims();
  Ranks ranks;
  ranks.all.assign(dims.size(), std::vector<int64_t>(users.size()));
  ranks.masked = ranks.all;

  const size_t chunk = static_cast<size_t>(options.users_per_chunk);
  const size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const size_t threads =
      std::min(options.threads > 0 ? static_cast<size_t>(options.threads) : cores,
               (users.size() + chunk - 1) / chunk);
  std::atomic<size_t> next{0};    // relaxed: only hands out indexes
  std::atomic<bool> stop{false};  // relaxed: a hint to end early; results are ordered by join
  std::mutex mutex;
  absl::Status status;  // the first error, under `mutex`
  size_t done = 0;      // under `mutex`
  const auto work = [&] {
    omp_set_num_threads(1);  // each thread runs its own products; BLAS must not start more
    while (!stop.load(std::memory_order_relaxed)) {
      const size_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= users.size()) return;
      const size_t end = std::min(begin + chunk, users.size());
      absl::Status ranked = Guard("evaluate", [&]() -> absl::Status {
        return RankChunk(ready, dataset, options.split, users, begin, end, ranks);
      });
      const std::lock_guard lock(mutex);
      done += end - begin;
      if (ranked.ok() && options.progress &&
          !options.progress(static_cast<int64_t>(done), static_cast<int64_t>(users.size()))) {
        ranked = absl::CancelledError("evaluation was stopped");
      }
      if (!ranked.ok()) {
        if (status.ok()) status = std::move(ranked);
        stop.store(true, std::memory_order_relaxed);
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    for (size_t t = 0; t < threads; ++t) pool.emplace_back(work);
  }
  NESTREC_RETURN_IF_ERROR(status);

  Evaluation evaluation;
  evaluation.users = static_cast<int64_t>(users.size());
  evaluation.skipped_users = dataset.users() - evaluation.users;
  for (size_t size = 0; size < dims.size(); ++size) {
    evaluation.sizes.push_back({dims[size], MetricsOfRanks(ranks.all[size])});
    evaluation.seen_masked.push_back({dims[size], MetricsOfRanks(ranks.masked[size])});
  }
  evaluation.ranks = std::move(ranks.all);
  return evaluation;
}

}  // namespace nestrec

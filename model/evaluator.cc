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

// Items of `history` that rank before `target`, each once.
int64_t SeenBefore(std::span<const float> scores, History history, int32_t target,
                   std::vector<int32_t>& scratch) {
  scratch.assign(history.begin(), history.end());
  std::sort(scratch.begin(), scratch.end());
  scratch.erase(std::unique(scratch.begin(), scratch.end()), scratch.end());
  const float score = scores[static_cast<size_t>(target)];
  return std::count_if(scratch.begin(), scratch.end(), [&](int32_t item) {
    const float other = scores[static_cast<size_t>(item)];
    return other > score || (other == score && item < target);
  });
}

struct Ranks {
  std::vector<std::vector<int64_t>> all;     // [size][user]
  std::vector<std::vector<int64_t>> masked;  // [size][user]
};

// Ranks the users [begin, end) of `users`.
absl::Status RankChunk(const Scorer& scorer, const Dataset& dataset, Split split,
                       std::span<const int64_t> users, size_t begin, size_t end, Ranks& ranks) {
  std::vector<History> histories;
  for (size_t u = begin; u < end; ++u)
    histories.push_back(HistoryOf(dataset.sequence(users[u]), split));
  const size_t rows = static_cast<size_t>(dataset.items()) + 1;
  std::vector<int32_t> scratch;
  return scorer.Score(histories, [&](int size, std::span<const float> scores) -> absl::Status {
    if (scores.size() != histories.size() * rows) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ", scorer.name(), " scores ", scores.size() / histories.size() - 1,
                       " items, but the data has ", rows - 1,
                       "; evaluate a model on the data that it was trained on"));
    }
    for (size_t u = begin; u < end; ++u) {
      const std::span<const float> row = scores.subspan((u - begin) * rows, rows);
      const History history = histories[u - begin];
      const int32_t target = TargetOf(dataset.sequence(users[u]), split);
      if (std::isnan(row[static_cast<size_t>(target)])) {
        return absl::InternalError(absl::StrCat("the score of item ", target, " for user ",
                                                dataset.user_ids[static_cast<size_t>(users[u])],
                                                " is not a number"));
      }
      const int64_t rank = RankOf(row, target);
      ranks.all[static_cast<size_t>(size)][u] = rank;
      const bool target_seen = std::find(history.begin(), history.end(), target) != history.end();
      ranks.masked[static_cast<size_t>(size)][u] =
          target_seen ? kNotFound : rank - SeenBefore(row, history, target, scratch);
    }
    return absl::OkStatus();
  });
}

}  // namespace

int64_t RankOf(std::span<const float> scores, int32_t target) {
  const float score = scores[static_cast<size_t>(target)];
  int64_t rank = 1;
  for (const float other : scores.subspan(1, static_cast<size_t>(target) - 1))
    rank += other >= score ? 1 : 0;
  for (const float other : scores.subspan(static_cast<size_t>(target) + 1))
    rank += other > score ? 1 : 0;
  return rank;
}

absl::StatusOr<Evaluation> Evaluate(const Scorer& scorer, const Dataset& dataset,
                                    const EvaluationOptions& options) {
  std::vector<int64_t> users;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    if (IsEvaluated(dataset.sequence(user))) users.push_back(user);
  }
  if (users.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("none of the ", dataset.users(), " users has ", kMinEvaluatedEvents,
                     " events, which evaluation needs (history, validation and test item)"));
  }
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
        return RankChunk(scorer, dataset, options.split, users, begin, end, ranks);
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

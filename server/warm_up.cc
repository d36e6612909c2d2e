#include "server/warm_up.h"

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/guard.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "server/recommender.h"

namespace nestrec {
namespace {

constexpr absl::Duration kTime = absl::Milliseconds(500);  // of each of the two parts
constexpr int kRounds = 3;
constexpr int64_t kItems = 10;  // to find

// Time that this thread has run: beside requests, which go first, it mostly waits.
Instant Now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return Instant(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
}

class Runs {
 public:
  explicit Runs(const Snapshot& snapshot) : snapshot_(snapshot), view_(snapshot.items()) {}

  absl::Status RunWidths() {
    const Instant begun = Now();
    for (int round = 0; round < kRounds; ++round) {
      for (int levels = 1; levels <= snapshot_.sizes().levels(); ++levels) {
        for (const int64_t items : {1, 8, snapshot_.encoder().max_len()}) {
          if (round > 0 && Between(begun, Now()) >= kTime) return absl::OkStatus();
          const std::vector<int32_t> history = RandomHistory(items);
          // The first run of a width touches its memory for the first time.
          if (round == 0) NESTREC_RETURN_IF_ERROR(Run(levels, history, /*record=*/false));
          NESTREC_RETURN_IF_ERROR(Run(levels, history, /*record=*/true));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status RunAgain(std::span<const RecentRequests::Request> recent) {
    const Instant begun = Now();
    for (const RecentRequests::Request& request : recent) {
      if (Between(begun, Now()) >= kTime) break;
      const absl::StatusOr<int> levels = snapshot_.sizes().LevelsOf(request.dim);
      if (!levels.ok()) continue;
      std::vector<int32_t> history;
      for (const std::string& id : request.item_ids) {
        if (const auto item = view_->Find(id); item.has_value()) history.push_back(*item);
      }
      NESTREC_RETURN_IF_ERROR(Run(*levels, history, /*record=*/true));
    }
    return absl::OkStatus();
  }

 private:
  std::vector<int32_t> RandomHistory(int64_t count) {
    std::vector<int32_t> history;
    for (int64_t i = 0; i < count; ++i) {
      history.push_back(static_cast<int32_t>(1 + random_.Index(snapshot_.catalogue().size())));
    }
    return history;
  }

  absl::Status Run(int levels, const History& history, bool record) {
    const int dim = snapshot_.sizes().end(levels - 1);
    const WidthDecision width = {.dim = dim, .levels = levels};
    std::vector<float> z(static_cast<size_t>(dim));
    RecommendQuery query;
    query.k = kItems;
    RecommendQuery similar = query;
    similar.similar_to = history.empty() ? 1 : history.front();
    const Instant begun = Now();
    NESTREC_RETURN_IF_ERROR(
        snapshot_.encoder().Encode(std::span(&history, 1), levels, z, view_.get()));
    const Instant encoded = Now();
    NESTREC_RETURN_IF_ERROR(FindItems(snapshot_, *view_, query, width, z).status());
    const Instant searched = Now();
    NESTREC_RETURN_IF_ERROR(FindItems(snapshot_, *view_, similar, width, z).status());
    if (record) {
      const auto items = std::max<int64_t>(1, static_cast<int64_t>(history.size()));
      snapshot_.costs().Record(Stage::kEncode, levels, items, Between(begun, encoded));
      snapshot_.costs().Record(Stage::kSearch, levels, 1, Between(encoded, searched));
      snapshot_.costs().Record(Stage::kSimilar, levels, 1, Between(searched, Now()));
    }
    return absl::OkStatus();
  }

  const Snapshot& snapshot_;
  const std::shared_ptr<const ItemView> view_;
  Random random_{1};
};

}  // namespace

absl::Status WarmUp(const Snapshot& snapshot, std::span<const RecentRequests::Request> recent) {
  absl::Status status;
  std::thread([&] {  // alone, as a worker runs it
    omp_set_num_threads(1);
    status = Guard("warming up", [&]() -> absl::Status {
      Runs runs(snapshot);
      NESTREC_RETURN_IF_ERROR(runs.RunWidths());
      return runs.RunAgain(recent);
    });
  })
      .join();
  return status;
}

}  // namespace nestrec

#include "server/warm_up.h"

#include <omp.h>

#include <algorithm>
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

class Runs {
 public:
  Runs(const Snapshot& snapshot, const Clock& clock)
      : snapshot_(snapshot), clock_(clock), view_(snapshot.items()) {}

  absl::Status RunWidths() {
    const Instant begun = clock_();
    for (int round = 0; round < kRounds; ++round) {
      for (int levels = 1; levels <= snapshot_.sizes().levels(); ++levels) {
        for (const int64_t items : {1, 8, snapshot_.encoder().max_len()}) {
          if (round > 0 && Between(begun, clock_()) >= kTime) return absl::OkStatus();
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
    const Instant begun = clock_();
    for (const RecentRequests::Request& request : recent) {
      if (Between(begun, clock_()) >= kTime) break;
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
    const Instant begun = clock_();
    NESTREC_RETURN_IF_ERROR(
        snapshot_.encoder().Encode(std::span(&history, 1), levels, z, view_.get()));
    const Instant encoded = clock_();
    if (record) {
      const auto items = std::max<int64_t>(1, static_cast<int64_t>(history.size()));
      snapshot_.costs().Record(Stage::kEncode, levels, items, Between(begun, encoded));
    }
    if (!snapshot_.searches()) return absl::OkStatus();
    const Instant searching = clock_();
    NESTREC_RETURN_IF_ERROR(FindItems(snapshot_, *view_, query, width, z).status());
    const Instant searched = clock_();
    NESTREC_RETURN_IF_ERROR(FindItems(snapshot_, *view_, similar, width, z).status());
    if (record) {
      snapshot_.costs().Record(Stage::kSearch, levels, 1, Between(searching, searched));
      snapshot_.costs().Record(Stage::kSimilar, levels, 1, Between(searched, clock_()));
    }
    return absl::OkStatus();
  }

  const Snapshot& snapshot_;
  const Clock& clock_;
  const std::shared_ptr<const ItemView> view_;
  Random random_{1};
};

}  // namespace

absl::Status WarmUp(const Snapshot& snapshot, std::span<const RecentRequests::Request> recent,
                    const Clock& clock) {
  absl::Status status;
  std::thread([&] {  // alone, as a worker runs it
    omp_set_num_threads(1);
    status = Guard("warming up", [&]() -> absl::Status {
      Runs runs(snapshot, clock);
      NESTREC_RETURN_IF_ERROR(runs.RunWidths());
      return runs.RunAgain(recent);
    });
  })
      .join();
  return status;
}

}  // namespace nestrec

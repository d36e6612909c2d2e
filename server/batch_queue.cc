#include "server/batch_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

constexpr double kMemory = 0.9;  // what a batch's time counts once the next one is known
// Of a request's time, that it may wait; the rest is for the work, and for waits that are longer
// than expected.
constexpr double kWaitingShare = 0.5;
constexpr absl::Duration kShortestRetry = absl::Milliseconds(10);
constexpr absl::Duration kLongestRetry = absl::Seconds(5);

std::string Rounded(absl::Duration duration) {
  return absl::FormatDuration(absl::Ceil(duration, absl::Milliseconds(1)));
}

}  // namespace

BatchQueue::BatchQueue(Options options)
    : options_(std::move(options)), lanes_(options_.lanes.size()) {}

absl::Status BatchQueue::Push(size_t lane, QueuedItem item) {
  const Lane& options = options_.lanes[lane];
  Waiting& waiting = lanes_[lane];
  const absl::Duration wait = ExpectedWait(lane);
  // The lane is half empty by then. Clients add jitter of their own.
  const absl::Duration retry = std::clamp(wait / 2, kShortestRetry, kLongestRetry);
  const std::string of = options.name.empty() ? "" : absl::StrCat(" of tier ", options.name);
  if (waiting.items.size() >= options.capacity) {
    ++waiting.stats.refused_full;
    return WithRetryDelay(
        absl::ResourceExhaustedError(absl::StrCat("the queue", of, " is full (", options.capacity,
                                                  " requests wait); try again later")),
        retry);
  }
  const absl::Duration time = item.deadline == Instant::max()
                                  ? absl::InfiniteDuration()
                                  : Between(item.accepted, item.deadline);
  // Whoever is next is let in whatever the estimate says, or a wrong one would never be mended.
  if (wait > absl::ZeroDuration() && wait > kWaitingShare * time) {
    ++waiting.stats.refused_late;
    return WithRetryDelay(
        absl::ResourceExhaustedError(absl::StrCat("the queue", of, " takes about ", Rounded(wait),
                                                  " now, too long for a request that has ",
                                                  Rounded(std::max(absl::ZeroDuration(), time)),
                                                  "; try again later, or give it more time")),
        retry);
  }
  if (waiting.items.empty()) waiting.turn = std::max(waiting.turn, newest_turn_);
  item.lane = lane;
  waiting.items.push_back(std::move(item));
  ++waiting.stats.accepted;
  ++size_;
  return absl::OkStatus();
}

std::optional<Instant> BatchQueue::ReadyAt() const {
  std::optional<Instant> oldest;
  for (const Waiting& lane : lanes_) {
    if (lane.items.empty()) continue;
    const Instant accepted = lane.items.front().accepted;
    if (!oldest.has_value() || accepted < *oldest) oldest = accepted;
  }
  if (!oldest.has_value() || size_ >= options_.max_batch) return oldest;
  return *oldest + absl::ToChronoNanoseconds(options_.max_delay);
}

size_t BatchQueue::NextLane() const {
  size_t next = lanes_.size();
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].items.empty()) continue;
    const bool first = next == lanes_.size();
    const int priority = options_.lanes[i].priority;
    const int highest = first ? priority : options_.lanes[next].priority;
    if (first || priority > highest ||
        (priority == highest && lanes_[i].turn < lanes_[next].turn)) {
      next = i;
    }
  }
  return next;
}

BatchQueue::Taken BatchQueue::Take(Instant now) {
  Taken taken;
  while (size_ > 0 && taken.batch.size() < options_.max_batch) {
    const size_t lane = NextLane();
    Waiting& waiting = lanes_[lane];
    QueuedItem item = std::move(waiting.items.front());
    waiting.items.pop_front();
    --size_;
    if (now >= item.deadline) {
      ++waiting.stats.expired;
      taken.expired.push_back(std::move(item));
      continue;
    }
    newest_turn_ = waiting.turn;
    waiting.turn += 1 / options_.lanes[lane].share;
    taken.batch.push_back(std::move(item));
  }
  return taken;
}

std::vector<LaneStats> BatchQueue::stats() const {
  std::vector<LaneStats> stats;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    stats.push_back(lanes_[i].stats);
    stats.back().name = options_.lanes[i].name;
    stats.back().waiting = lanes_[i].items.size();
  }
  return stats;
}

void BatchQueue::Served(size_t items, absl::Duration busy) {
  served_ = kMemory * served_ + static_cast<double>(items);
  busy_ = kMemory * busy_ + busy;
}

absl::Duration BatchQueue::ExpectedWait(size_t lane) const {
  if (served_ == 0) return absl::ZeroDuration();
  const Lane& own = options_.lanes[lane];
  const double waiting = static_cast<double>(lanes_[lane].items.size());
  double ahead = waiting;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const Lane& other = options_.lanes[i];
    if (i == lane || other.priority < own.priority) continue;
    const double there = static_cast<double>(lanes_[i].items.size());
    ahead +=
        other.priority > own.priority ? there : std::min(there, waiting * other.share / own.share);
  }
  return busy_ / served_ * ahead / options_.workers;
}

}  // namespace nestrec

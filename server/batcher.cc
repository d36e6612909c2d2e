#include "server/batcher.h"

#include <omp.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace nestrec {

Batcher::Batcher(Options options) : options_(std::move(options)), queue_(options_.queue) {
  const MutexLock lock(join_mutex_);
  for (int i = 0; i < options_.queue.workers; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

Batcher::~Batcher() { Shutdown(); }

absl::Status Batcher::Submit(size_t lane, QueuedItem item) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) return absl::UnavailableError("the server is shutting down");
    if (absl::Status status = queue_.Push(lane, std::move(item)); !status.ok()) return status;
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

std::vector<LaneStats> Batcher::stats() {
  const MutexLock lock(mutex_);
  return queue_.stats();
}

void Batcher::Shutdown() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  const MutexLock lock(join_mutex_);
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
}

BatchQueue::Taken Batcher::Take() {
  const MutexLock lock(mutex_);
  for (;;) {
    const std::optional<Instant> ready = queue_.ReadyAt();
    if (!ready.has_value()) {
      if (stopping_) return {};
      changed_.Wait(mutex_);
      continue;
    }
    const Instant now = options_.clock();
    if (now >= *ready || stopping_) return queue_.Take(now);
    changed_.WaitUntil(mutex_, std::chrono::steady_clock::now() + (*ready - now));
  }
}

void Batcher::Work() {
  omp_set_num_threads(1);
  for (;;) {
    BatchQueue::Taken taken = Take();
    if (taken.batch.empty() && taken.expired.empty()) return;
    for (QueuedItem& late : taken.expired) {
      late.item->Drop(
          absl::DeadlineExceededError("the deadline passed while the request waited for a worker"));
    }
    Batch batch;
    for (QueuedItem& item : taken.batch) {
      if (item.item->Cancelled()) {
        {
          const MutexLock lock(mutex_);
          queue_.Cancelled(item.lane);
        }
        item.item->Drop(absl::CancelledError("the client cancelled the call"));
      } else {
        batch.items.push_back(std::move(item));
      }
    }
    if (batch.items.empty()) continue;
    const size_t count = batch.items.size();
    batch.started = options_.clock();
    for (const QueuedItem& item : batch.items) {
      batch.waited = std::max(batch.waited, Between(item.accepted, batch.started));
    }
    const Instant started = batch.started;
    options_.run(std::move(batch));
    const absl::Duration busy = Between(started, options_.clock());
    const MutexLock lock(mutex_);
    queue_.Served(count, busy);
  }
}

}  // namespace nestrec

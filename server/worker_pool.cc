#include "server/worker_pool.h"

#include <omp.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

// A queue of this server empties in much less; clients add jitter of their own.
constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

}  // namespace

WorkerPool::WorkerPool(Options options) : options_(std::move(options)) {
  const MutexLock lock(join_mutex_);
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

WorkerPool::~WorkerPool() { Shutdown(); }

absl::Status WorkerPool::Submit(Task task) {
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      return absl::UnavailableError("the server is shutting down");
    }
    if (queue_.size() >= options_.queue_capacity) {
      ++stats_.refused;
      return WithRetryDelay(
          absl::ResourceExhaustedError(absl::StrCat("the queue is full (", options_.queue_capacity,
                                                    " requests wait); try again later")),
          kRetryDelay);
    }
    queue_.push_back(std::move(task));
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

WorkerPool::Stats WorkerPool::stats() {
  const MutexLock lock(mutex_);
  Stats stats = stats_;
  stats.waiting = queue_.size();
  return stats;
}

void WorkerPool::Shutdown() {
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

void WorkerPool::Work() {
  // One request, one core: BLAS and FAISS must not start threads of their own in each worker.
  omp_set_num_threads(1);
  for (;;) {
    Task task;
    {
      const MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) {
        changed_.Wait(mutex_);
      }
      if (queue_.empty()) {
        return;
      }
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    const Instant now = options_.clock();
    const bool cancelled = task.cancelled && task.cancelled();
    const bool expired = !cancelled && now >= task.deadline;
    if (cancelled || expired) {
      const MutexLock lock(mutex_);
      ++(cancelled ? stats_.cancelled : stats_.expired);
    }
    if (cancelled) {
      task.drop(absl::CancelledError("the client cancelled the call"));
    } else if (expired) {
      task.drop(
          absl::DeadlineExceededError("the deadline passed while the request waited for a worker"));
    } else {
      task.run(now);
    }
  }
}

}  // namespace nestrec

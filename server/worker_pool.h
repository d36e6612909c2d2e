// The threads that run the model, behind a bounded queue: RPC threads hand work over and never
// compute.
//
//   NESTREC_RETURN_IF_ERROR(pool.Submit({.deadline = deadline,
//                                        .cancelled = [call] { return call->IsCancelled(); },
//                                        .run = [call](Instant started) { ... },
//                                        .drop = [call](const absl::Status& why) { ... }}));
//
// Every task that Submit accepted gets exactly one call, run or drop, on a worker's thread. A task
// that is cancelled or past its deadline when its turn comes is dropped before it costs anything.
//
// Thread safety: all methods may be called from any thread; not from a task.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/clock.h"

namespace nestrec {

class WorkerPool {
 public:
  struct Options {
    int threads = 1;            // REQUIRES: >= 1
    size_t queue_capacity = 1;  // tasks that wait; REQUIRES: >= 1
    Clock clock = SteadyClock();
  };

  struct Task {
    Instant deadline = Instant::max();
    std::function<bool()> cancelled;  // called once, before run
    std::function<void(Instant started)> run;
    std::function<void(const absl::Status&)> drop;  // kDeadlineExceeded or kCancelled
  };

  explicit WorkerPool(Options options);
  // Runs what is queued, then ends.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // kResourceExhausted with a retry delay when the queue is full, kUnavailable after Shutdown; the
  // task is not kept then, and neither of its functions is called.
  absl::Status Submit(Task task);

  // What became of the tasks so far.
  struct Stats {
    size_t waiting = 0;  // now
    int64_t refused = 0;
    int64_t expired = 0;
    int64_t cancelled = 0;
  };
  Stats stats();

  // Refuses new tasks, runs the queued ones and returns when the last has ended. May be called
  // again.
  void Shutdown();

 private:
  void Work();

  const Options options_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mutex_);
  Stats stats_ ABSL_GUARDED_BY(mutex_);  // but for waiting
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Mutex join_mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace nestrec

// Signals while the processor is in the kernels of matrix products.
#include "cli/interrupt.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <signal.h>
#include <time.h>

#include <csignal>
#include <cstdint>
#include <vector>

#include "base/random.h"
#include "model/gemm.h"

namespace nestrec {
namespace {

// Sends this process a SIGTERM every 50 microseconds for as long as it lives.
class ManySignals {
 public:
  ManySignals() {
    sigevent event = {};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGTERM;
    started_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    const timespec each = {.tv_sec = 0, .tv_nsec = 50'000};
    const itimerspec times = {.it_interval = each, .it_value = each};
    started_ = started_ && timer_settime(timer_, 0, &times, nullptr) == 0;
  }
  ~ManySignals() { timer_delete(timer_); }
  bool started() const { return started_; }

 private:
  timer_t timer_ = {};
  bool started_ = false;
};

struct Shape {
  Op op_a, op_b;
  int64_t m, n, k;
};

std::vector<float> Values(int64_t count, uint64_t stream) {
  Random random(5, stream);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>(random.Index(7) - 3));  // sums of products are exact
  }
  return values;
}

TEST(InterruptTest, SignalsThatComeDuringProductsHarmNeitherThemNorTheHeap) {
  CatchInterrupts();
  omp_set_num_threads(1);  // the main thread, which gets the signals, computes
  for (const Shape& shape : {Shape{Op::kNone, Op::kNone, 12102, 256, 384},
                             Shape{Op::kNone, Op::kTranspose, 3000, 248, 256},
                             Shape{Op::kTranspose, Op::kNone, 248, 256, 3000},
                             Shape{Op::kTranspose, Op::kNone, 8, 8, 3000}}) {
    const std::vector<float> a = Values(shape.m * shape.k, 1);
    const std::vector<float> b = Values(shape.k * shape.n, 2);
    std::vector<float> expected(static_cast<size_t>(shape.m * shape.n));
    std::vector<float> actual(expected.size());
    const auto multiply = [&](std::vector<float>& c) {
      Gemm(shape.op_a, shape.op_b, shape.m, shape.n, shape.k, a.data(),
           shape.op_a == Op::kNone ? shape.k : shape.m, b.data(),
           shape.op_b == Op::kNone ? shape.n : shape.k, 0.0f, c.data(), shape.n);
    };
    multiply(expected);
    const ManySignals signals;
    ASSERT_TRUE(signals.started());
    for (int i = 0; i < 3; ++i) {
      multiply(actual);
      EXPECT_EQ(actual, expected) << shape.m << " x " << shape.n << " x " << shape.k;
    }
  }
  EXPECT_TRUE(Interrupted());
  EXPECT_TRUE(Terminated());
}

}  // namespace
}  // namespace nestrec

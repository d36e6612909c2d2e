#include "server/security/rate_limiter.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "base/random.h"

namespace nestrec {
namespace {

Instant At(absl::Duration time) { return Instant() + absl::ToChronoNanoseconds(time); }

TEST(RateLimiter, LetsABurstGoAndThenTheRate) {
  RateLimiter limiter({.rate = 10, .burst = 3});
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(limiter.Take("a", At(absl::Seconds(5))), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("a", At(absl::Seconds(5))), absl::Milliseconds(100));
  EXPECT_GT(limiter.Take("a", At(absl::Seconds(5) + absl::Milliseconds(99))), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("a", At(absl::Seconds(5) + absl::Milliseconds(101))),
            absl::ZeroDuration());
  EXPECT_GT(limiter.Take("a", At(absl::Seconds(5) + absl::Milliseconds(102))),
            absl::ZeroDuration());
}

TEST(RateLimiter, ABatchGoesWhereOneCallMayAndIsPaidOffBeforeTheNext) {
  RateLimiter limiter({.rate = 10, .burst = 3});
  EXPECT_EQ(limiter.Take("a", At(absl::Seconds(5)), 100), absl::ZeroDuration());
  // 3 - 100 have to become 1.
  EXPECT_EQ(limiter.Take("a", At(absl::Seconds(5))), absl::Milliseconds(9'800));
  EXPECT_GT(limiter.Take("a", At(absl::Milliseconds(14'799))), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("a", At(absl::Milliseconds(14'801))), absl::ZeroDuration());
  EXPECT_GT(limiter.Take("a", At(absl::Milliseconds(14'802))), absl::ZeroDuration());
}

TEST(RateLimiter, ClientsDoNotShare) {
  RateLimiter limiter({.rate = 1, .burst = 1});
  EXPECT_EQ(limiter.Take("a", At(absl::ZeroDuration())), absl::ZeroDuration());
  EXPECT_NE(limiter.Take("a", At(absl::ZeroDuration())), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("b", At(absl::ZeroDuration())), absl::ZeroDuration());
}

TEST(RateLimiter, AnIdleClientSavesUpNoMoreThanABurst) {
  RateLimiter limiter({.rate = 1000, .burst = 2});
  int let = 0;
  limiter.Take("a", At(absl::ZeroDuration()));
  for (int i = 0; i < 10; ++i) let += limiter.Take("a", At(absl::Hours(9))) == absl::ZeroDuration();
  EXPECT_EQ(let, 2);
}

TEST(RateLimiter, NeverLetsMoreThanBurstAndRateAllow) {
  RateLimiter limiter({.rate = 50, .burst = 5});
  Random random(3);
  absl::Duration now;
  int let = 0;
  for (int i = 0; i < 5000; ++i) {
    now += absl::Microseconds(random.Index(8000));
    let += limiter.Take("a", At(now)) == absl::ZeroDuration();
    ASSERT_LE(let, 5 + 50 * absl::ToDoubleSeconds(now) + 1e-6);
  }
  EXPECT_GT(let, 50 * absl::ToDoubleSeconds(now) * 0.95);
}

TEST(RateLimiter, ForgetsTheClientsThatCalledLongestAgo) {
  RateLimiter limiter({.rate = 1e-3, .burst = 1, .most_clients = 100});
  for (int i = 0; i < 100; ++i) limiter.Take(absl::StrCat("client ", i), At(absl::Seconds(i)));
  EXPECT_NE(limiter.Take("client 0", At(absl::Seconds(100))),
            absl::ZeroDuration());                   // now the latest
  limiter.Take("one more", At(absl::Seconds(100)));  // in place of client 1
  EXPECT_NE(limiter.Take("client 0", At(absl::Seconds(100))), absl::ZeroDuration());
  EXPECT_EQ(limiter.Take("client 1", At(absl::Seconds(100))), absl::ZeroDuration());
}

}  // namespace
}  // namespace nestrec

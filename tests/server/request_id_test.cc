#include "server/request_id.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "server/sampling.h"

namespace nestrec {
namespace {

TEST(RequestId, TakesWhatMayStandInALog) {
  EXPECT_TRUE(IsSaneRequestId("4bf92f35-77b3"));
  EXPECT_TRUE(IsSaneRequestId("Root=1-67891233-abcdef012345678912345678"));
  EXPECT_TRUE(IsSaneRequestId(std::string(kMaxRequestIdBytes, 'a')));
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\nb"),
                                 std::string("a\"b"), std::string("caf\xc3\xa9"),
                                 std::string(1, '\0'), std::string(kMaxRequestIdBytes + 1, 'a')}) {
    EXPECT_FALSE(IsSaneRequestId(bad)) << bad;
  }
}

TEST(RequestId, NewOnesAreSaneAndDiffer) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewRequestId();
    EXPECT_EQ(id.size(), 32u);
    EXPECT_TRUE(IsSaneRequestId(id));
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000u);
}

TEST(RequestId, ReadsTraceParents) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const std::string good = "00-" + trace + "-00f067aa0ba902b7-01";
  EXPECT_EQ(TraceIdOf(good), trace);
  EXPECT_EQ(TraceIdOf("cc-" + trace + "-00f067aa0ba902b7-01-what-is-to-come"), trace);
  for (const std::string& bad : {std::string(), good.substr(1), good + "-x", "ff" + good.substr(2),
                                 good + "0", "00-" + std::string(32, '0') + "-00f067aa0ba902b7-01",
                                 "00-" + trace + "-0000000000000000-01",
                                 "00-4BF92F3577B34DA6A3CE929D0E0E4736" + good.substr(35),
                                 "00_" + good.substr(3), "cc" + good.substr(2) + "x"}) {
    EXPECT_EQ(TraceIdOf(bad), "") << bad;
  }
}

constexpr uint64_t kSalt = SaltOf("a test");

TEST(Sampling, AShareIsThatShareAndAlwaysTheSame) {
  int numbers = 0, texts = 0;
  for (int i = 0; i < 20'000; ++i) {
    numbers += SampleOf(kSalt, static_cast<uint64_t>(i)) < 0.1 ? 1 : 0;
    const std::string user = "user " + std::to_string(i);
    texts += SampleOf(kSalt, user) < 0.1 ? 1 : 0;
    EXPECT_EQ(SampleOf(kSalt, user), SampleOf(kSalt, user));
  }
  EXPECT_NEAR(numbers, 2000, 150);
  EXPECT_NEAR(texts, 2000, 150);
  EXPECT_GE(SampleOf(kSalt, "anyone"), 0);
  EXPECT_LT(SampleOf(kSalt, "anyone"), 1);
}

TEST(Sampling, SharesForTwoPurposesAreIndependent) {
  constexpr int kUsers = 50'000;
  const std::vector<uint64_t> salts = {SaltOf("canary v2"), SaltOf("canary v3"),
                                       SaltOf("request log")};
  for (size_t a = 0; a < salts.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      int both = 0, both_numbers = 0;
      for (int i = 0; i < kUsers; ++i) {
        const std::string user = "user " + std::to_string(i);
        const auto number = static_cast<uint64_t>(i);
        both += SampleOf(salts[a], user) < 0.3 && SampleOf(salts[b], user) < 0.1;
        both_numbers += SampleOf(salts[a], number) < 0.3 && SampleOf(salts[b], number) < 0.1;
      }
      // 3% of them, within five standard deviations.
      EXPECT_NEAR(both, 1500, 190) << a << ", " << b;
      EXPECT_NEAR(both_numbers, 1500, 190) << a << ", " << b;
    }
  }
}

}  // namespace
}  // namespace nestrec

#include "server/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/catalogue_attributes.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Validate : public ::testing::Test {
 protected:
  absl::StatusOr<RecommendQuery> Query() const {
    return ValidateRecommend(request_, {}, ItemView(catalogue_), attributes_);
  }
  // The only violation, as "field: description".
  std::string Violation() const {
    const auto query = Query();
    EXPECT_EQ(query.status().code(), absl::StatusCode::kInvalidArgument);
    const auto violations = FieldViolationsOf(query.status());
    EXPECT_EQ(violations.size(), 1u);
    return violations.empty() ? ""
                              : absl::StrCat(violations[0].field, ": ", violations[0].description);
  }

  Catalogue catalogue_ =
      *Catalogue::Create({"a", "two words", "品目", "d"},
                         {R"({"brand": "x", "price": 3})", "{}", R"({"brand": "y"})", "{}"});
  AttributeTable attributes_ = ReadAttributes(catalogue_, {})->table;
  v1::RecommendRequest request_;
};

TEST_F(Validate, AnEmptyRequestAsksForTenItemsWithTitles) {
  const auto query = Query();
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_EQ(query->k, 10);
  EXPECT_THAT(query->history, IsEmpty());
  EXPECT_THAT(query->excluded, IsEmpty());
  EXPECT_THAT(query->fields, ElementsAre("title"));
  EXPECT_FALSE(query->width.dim.has_value());
  EXPECT_FALSE(query->width.tier.has_value());
  EXPECT_FALSE(query->min_score.has_value());
}

TEST_F(Validate, ResolvesIdsWithSpacesAndUnicodeInTheirOrder) {
  for (const char* id : {"品目", "two words", "a", "品目"}) {
    request_.add_history_item_ids(id);
  }
  const auto query = Query();
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_THAT(query->history, ElementsAre(3, 2, 1, 3));
  EXPECT_THAT(query->excluded, ElementsAre(3, 2, 1, 3));  // seen
}

TEST_F(Validate, IncludeSeenExcludesOnlyWhatIsListed) {
  request_.add_history_item_ids("a");
  request_.add_exclude_item_ids("d");
  request_.set_include_seen(true);
  EXPECT_THAT(Query()->excluded, ElementsAre(4));
}

TEST_F(Validate, ReportsUnknownIdsOnceEach) {
  for (const char* id : {"x", "a", "y", "x", "A"}) {
    request_.add_history_item_ids(id);
  }
  request_.add_exclude_item_ids("z");
  const auto query = Query();
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_THAT(query->history, ElementsAre(1));
  EXPECT_THAT(query->unknown_history.ids, ElementsAre("x", "y", "A"));
  EXPECT_EQ(query->unknown_history.count, 3);
  EXPECT_THAT(query->unknown_excluded.ids, ElementsAre("z"));
}

TEST_F(Validate, BoundsTheReportOfUnknownIds) {
  for (int i = 0; i < 5000; ++i) {
    request_.add_history_item_ids(absl::StrCat("unknown ", i));
  }
  const auto query = Query();
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_EQ(query->unknown_history.ids.size(), UnknownIds::kReported);
  EXPECT_EQ(query->unknown_history.count, 5000);
}

TEST_F(Validate, TakesABudgetAboveZero) {
  request_.mutable_latency_budget()->set_nanos(1'500'000);
  EXPECT_EQ(Query()->width.latency_budget, absl::Microseconds(1500));
  request_.mutable_latency_budget()->set_seconds(315'576'000'000);
  EXPECT_TRUE(Query().ok());
  const auto refuses = [&](int64_t seconds, int32_t nanos) {
    request_.mutable_latency_budget()->set_seconds(seconds);
    request_.mutable_latency_budget()->set_nanos(nanos);
    EXPECT_EQ(Violation(), absl::StrCat("latency_budget: ", seconds, " s and ", nanos,
                                        " ns; a valid duration above 0 is needed"));
  };
  refuses(0, 0);
  refuses(-1, 0);
  refuses(1, -1);
  refuses(0, 1'000'000'000);
  refuses(315'576'000'001, 0);
  refuses(std::numeric_limits<int64_t>::min(), std::numeric_limits<int32_t>::min());
}

TEST_F(Validate, TakesAQualityFromZeroToOne) {
  for (const double quality : {0.0, 0.5, 1.0}) {
    request_.set_min_quality(quality);
    EXPECT_EQ(Query()->width.min_quality, quality);
  }
  for (const double quality : {-0.1, 1.1, std::nan(""), HUGE_VAL}) {
    request_.set_min_quality(quality);
    EXPECT_EQ(Violation(), absl::StrCat("min_quality: ", quality, " is not in 0 to 1"));
  }
}

TEST_F(Validate, TakesKFromOneToTheLimit) {
  request_.set_k(1);
  EXPECT_EQ(Query()->k, 1);
  request_.set_k(1000);
  EXPECT_EQ(Query()->k, 1000);
  request_.set_k(0);
  EXPECT_EQ(Violation(), "k: 0 is not in 1 to 1000");
  request_.set_k(1'000'000'000);
  EXPECT_EQ(Violation(), "k: 1000000000 is not in 1 to 1000");
  request_.set_k(std::numeric_limits<uint32_t>::max());
  EXPECT_EQ(Violation(), "k: 4294967295 is not in 1 to 1000");
}

TEST_F(Validate, RefusesAHistoryOfAMillion) {
  for (int i = 0; i < 1'000'000; ++i) {
    request_.add_history_item_ids("a");
  }
  EXPECT_EQ(Violation(),
            "history_item_ids: 1000000 entries; at most 10000 are allowed; send the newest");
}

TEST_F(Validate, TakesAHistoryAtTheLimit) {
  for (int i = 0; i < 10'000; ++i) {
    request_.add_history_item_ids("a");
  }
  EXPECT_EQ(Query()->history.size(), 10'000u);
}

TEST_F(Validate, RefusesEmptyAndLongIdsByTheirPlace) {
  request_.add_history_item_ids("a");
  request_.add_history_item_ids("");
  EXPECT_EQ(Violation(), "history_item_ids[1]: is empty");
  request_.set_history_item_ids(1, std::string(257, 'x'));
  EXPECT_EQ(Violation(), "history_item_ids[1]: has 257 bytes; at most 256 are allowed");
  request_.set_history_item_ids(1, std::string(256, 'x'));
  EXPECT_TRUE(Query().ok());
}

TEST_F(Validate, RefusesTooManyExclusionsAndFields) {
  for (int i = 0; i < 10'001; ++i) request_.add_exclude_item_ids("a");
  EXPECT_THAT(Violation(), HasSubstr("exclude_item_ids: 10001 entries; at most 10000"));
  request_.clear_exclude_item_ids();
  for (int i = 0; i < 17; ++i) request_.add_fields("title");
  EXPECT_THAT(Violation(), HasSubstr("fields: 17 entries; at most 16"));
}

TEST_F(Validate, RefusesAMinScoreThatIsNotFinite) {
  for (const float score : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    request_.set_min_score(score);
    EXPECT_THAT(Violation(), HasSubstr("min_score: "));
  }
  request_.set_min_score(-3.5f);
  EXPECT_EQ(Query()->min_score, -3.5f);
}

TEST_F(Validate, PassesTheWidthOn) {
  request_.set_dim(64);
  EXPECT_EQ(Query()->width.dim, 64);
  request_.set_tier("gold");  // a oneof: the last one counts
  EXPECT_EQ(Query()->width.tier, "gold");
  EXPECT_FALSE(Query()->width.dim.has_value());
  request_.set_tier(std::string(65, 'x'));
  EXPECT_THAT(Violation(), HasSubstr("tier: has 65 bytes; at most 64"));
}

TEST_F(Validate, ResolvesTheOnlyItemsAndReportsUnknownOnes) {
  EXPECT_FALSE(Query()->only.has_value());
  request_.add_only_item_ids("d");
  request_.add_only_item_ids("nobody");
  EXPECT_THAT(Query()->only, testing::Optional(ElementsAre(4)));
  EXPECT_THAT(Query()->unknown_only.ids, ElementsAre("nobody"));
  request_.mutable_only_item_ids()->RemoveLast();
  request_.set_only_item_ids(0, "nobody");  // none that is known: nothing may come back
  EXPECT_THAT(Query()->only, testing::Optional(IsEmpty()));
}

TEST_F(Validate, ReadsCapsAndDiversity) {
  auto* cap = request_.add_caps();
  cap->set_field("brand");
  cap->set_most(2);
  request_.mutable_diversity();
  const auto query = Query();
  ASSERT_TRUE(query.ok()) << query.status();
  ASSERT_EQ(query->caps.size(), 1u);
  EXPECT_EQ(query->caps[0].field, "brand");
  EXPECT_EQ(query->caps[0].most, 2);
  EXPECT_FLOAT_EQ(static_cast<float>(query->diversity->relevance), 0.7f);
  EXPECT_EQ(query->diversity->candidates, 100);
  request_.set_k(50);
  EXPECT_EQ(Query()->diversity->candidates, 200);
}

TEST_F(Validate, RefusesBadCaps) {
  auto* cap = request_.add_caps();
  EXPECT_THAT(Violation(), HasSubstr("caps[0].field: no item has a field \"\"; the fields are "
                                     "brand, price"));
  cap->set_field("brand");
  EXPECT_EQ(Violation(), "caps[0].most: 0 is not at least 1");
  cap->set_most(4'000'000'000);
  EXPECT_TRUE(Query().ok());
  *request_.add_caps() = *cap;
  EXPECT_EQ(Violation(), "caps[1].field: \"brand\" has a cap already");
  for (int i = 0; i < 7; ++i) request_.add_caps();
  EXPECT_EQ(Violation(), "caps: 9 entries; at most 8 are allowed");
}

TEST_F(Validate, RefusesBadDiversity) {
  request_.mutable_diversity()->set_relevance(1.5f);
  EXPECT_EQ(Violation(), "diversity.relevance: 1.5 is not in 0 to 1");
  request_.mutable_diversity()->set_relevance(std::nanf(""));
  EXPECT_THAT(Violation(), HasSubstr("diversity.relevance: nan is not"));
  request_.mutable_diversity()->set_relevance(1);
  request_.mutable_diversity()->set_candidates(9);
  EXPECT_EQ(Violation(), "diversity.candidates: 9 is not in k (10) to 500");
  request_.mutable_diversity()->set_candidates(501);
  EXPECT_EQ(Violation(), "diversity.candidates: 501 is not in k (10) to 500");
  request_.mutable_diversity()->set_candidates(500);
  EXPECT_TRUE(Query().ok());
  request_.set_k(501);
  EXPECT_EQ(Violation(), "diversity: picks from at most 500 items; k is 501");
}

TEST_F(Validate, ReportsAllBadFieldsAtOnce) {
  request_.set_k(0);
  request_.add_history_item_ids("");
  request_.add_fields("");
  const auto violations = FieldViolationsOf(Query().status());
  ASSERT_EQ(violations.size(), 3u);
  EXPECT_EQ(violations[0].field, "history_item_ids[0]");
  EXPECT_EQ(violations[1].field, "k");
  EXPECT_EQ(violations[2].field, "fields[0]");
}

}  // namespace
}  // namespace nestrec

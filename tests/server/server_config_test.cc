#include "server/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view text) {
  const auto settings = ParseServerConfig(text, "tiers.textproto");
  EXPECT_EQ(settings.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(settings.status().message());
}

TEST(ServerConfig, ReadsTiers) {
  const auto settings = ParseServerConfig(R"(
    # the fast lane
    tiers { name: "fast" dim: 64 index: "IVF256,Flat" index_parameters: "nprobe=16" }
    tiers { name: "best" dim: 1024 }
    default_tier: "best"
  )",
                                          "tiers.textproto");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->default_tier, "best");
  EXPECT_EQ(settings->tiers,
            (std::vector<Tier>{{.name = "fast", .dim = 64, .index = {"IVF256,Flat", "nprobe=16"}},
                               {.name = "best", .dim = 1024, .index = {"auto", ""}}}));
}

TEST(ServerConfig, MayBeEmpty) {
  const auto settings = ParseServerConfig("", "tiers.textproto");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_TRUE(settings->tiers.empty());
}

TEST(ServerConfig, RefusesUnknownKeysWithTheirPlace) {
  const std::string error = ErrorOf("tiers {\n  name: \"a\"\n  dims: 64\n}");
  EXPECT_THAT(error, HasSubstr("tiers.textproto:3:"));
  EXPECT_THAT(error, HasSubstr("dims"));
}

TEST(ServerConfig, RefusesWhatDoesNotParse) {
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" dim: sixty }"), HasSubstr("tiers.textproto:1:"));
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" dim: 99999999999 }"), HasSubstr("tiers.textproto:1:"));
  EXPECT_THAT(ErrorOf("tiers { name: \"a\""), HasSubstr("tiers.textproto:1:"));
  EXPECT_THAT(ErrorOf(std::string("\xff\x00\xfe", 3)), HasSubstr("tiers.textproto:"));
}

TEST(ServerConfig, RefusesBadNames) {
  EXPECT_THAT(ErrorOf("tiers { dim: 64 }"), HasSubstr("tier name \"\""));
  EXPECT_THAT(ErrorOf("tiers { name: \"a b\" dim: 64 }"), HasSubstr("tier name \"a b\""));
  EXPECT_THAT(ErrorOf(absl::StrCat("tiers { name: \"", std::string(65, 'a'), "\" dim: 64 }")),
              HasSubstr("1 to 64"));
}

TEST(ServerConfig, RefusesTwoTiersOfOneName) {
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" dim: 8 } tiers { name: \"a\" dim: 16 }"),
              HasSubstr("two tiers are named \"a\""));
}

TEST(ServerConfig, RefusesATierWithoutDim) {
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" }"), HasSubstr("tier \"a\" has dim 0"));
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" dim: -8 }"), HasSubstr("tier \"a\" has dim -8"));
}

TEST(ServerConfig, ReadsRangesLimitsAndPlacesInTheQueue) {
  const auto settings = ParseServerConfig(R"(
    tiers {
      name: "gold" min_dim: 64 max_dim: 1024 max_k: 100 latency_budget: "25ms"
      queue_share: 2.5 priority: 10
    }
    tiers { name: "any" max_dim: 64 priority: -1 }
  )",
                                          "tiers.textproto");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->tiers,
            (std::vector<Tier>{{.name = "gold",
                                .dim = 1024,
                                .index = {},
                                .min_dim = 64,
                                .max_k = 100,
                                .queue_share = 2.5,
                                .priority = 10,
                                .latency_budget = absl::Milliseconds(25)},
                               {.name = "any", .dim = 64, .index = {}, .priority = -1}}));
  EXPECT_EQ(settings->tiers[1].narrowest(), 64);
}

TEST(ServerConfig, RefusesValuesOutsideTheirLimitsAndSaysWhich) {
  const auto error_of = [](absl::string_view keys) {
    return ErrorOf(absl::StrCat("tiers { name: \"a\" ", keys, " }"));
  };
  EXPECT_THAT(error_of("dim: 8 min_dim: 4"), HasSubstr("tier \"a\" has dim beside min_dim"));
  EXPECT_THAT(error_of("min_dim: 4"), HasSubstr("min_dim without max_dim"));
  EXPECT_THAT(error_of("max_dim: 0"), HasSubstr("max_dim 0; give one of the model's sizes"));
  EXPECT_THAT(error_of("min_dim: 16 max_dim: 8"), HasSubstr("min_dim 16; give one of the model's "
                                                            "sizes up to 8"));
  EXPECT_THAT(error_of("min_dim: 0 max_dim: 8"), HasSubstr("min_dim 0"));
  EXPECT_THAT(error_of("dim: 8 max_k: 0"), HasSubstr("max_k 0; give at least 1"));
  for (const char* budget : {"0s", "-5ms", "soon", "20"}) {
    EXPECT_THAT(error_of(absl::StrCat("dim: 8 latency_budget: \"", budget, "\"")),
                HasSubstr(absl::StrCat("latency_budget \"", budget, "\"; give a duration")));
  }
  for (const char* share : {"0", "-1", "1001", "nan"}) {
    EXPECT_THAT(error_of(absl::StrCat("dim: 8 queue_share: ", share)),
                HasSubstr(absl::StrCat("queue_share ", share, "; give a number above 0")));
  }
  for (const char* priority : {"101", "-101", "-2147483648"}) {
    EXPECT_THAT(error_of(absl::StrCat("dim: 8 priority: ", priority)),
                HasSubstr(absl::StrCat("priority ", priority, "; give one from -100 to 100")));
  }
}

TEST(ServerConfig, RefusesTooManyTiers) {
  std::string text;
  for (int i = 0; i < 33; ++i) {
    absl::StrAppend(&text, "tiers { name: \"t", i, "\" dim: 8 }\n");
  }
  EXPECT_THAT(ErrorOf(text), HasSubstr("33 tiers; at most 32"));
  EXPECT_THAT(ErrorOf(std::string(2 << 20, '#')), HasSubstr("2097152 bytes"));
}

TEST(ServerConfig, ReadsTheNumberOfCandidates) {
  const auto settings = ParseServerConfig(
      "tiers { name: \"a\" dim: 8 index: \"SQ8\" index_candidates: 0 } tiers { name: \"b\" dim: 8 "
      "}",
      "tiers.textproto");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->tiers[0].index.candidates, 0);
  EXPECT_EQ(settings->tiers[1].index.candidates, IndexSpec().candidates);
  EXPECT_THAT(ErrorOf("tiers { name: \"a\" dim: 8 index_candidates: 1000001 }"),
              HasSubstr("tier \"a\" has index_candidates 1000001; at most 1000000"));
}

TEST(ServerConfig, ReadsTheFieldsToFilterBy) {
  const auto settings =
      ParseServerConfig("filter_fields: \"brand\" filter_fields: \"price\"", "tiers.textproto");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_THAT(settings->filter_fields, testing::ElementsAre("brand", "price"));
  EXPECT_THAT(ErrorOf("filter_fields: \"\""), HasSubstr("filter_fields entry is empty"));
  std::string text;
  for (int i = 0; i < 257; ++i) absl::StrAppend(&text, "filter_fields: \"f", i, "\"\n");
  EXPECT_THAT(ErrorOf(text), HasSubstr("257 filter_fields; at most 256"));
}

TEST(ServerConfig, NamesAFileThatIsMissing) {
  const auto settings = ReadServerConfig("/no/such/tiers.textproto");
  EXPECT_EQ(settings.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(settings.status().message(), HasSubstr("/no/such/tiers.textproto"));
}

}  // namespace
}  // namespace nestrec

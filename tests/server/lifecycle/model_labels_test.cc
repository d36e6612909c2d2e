#include "server/lifecycle/model_labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/text_proto.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

v1::ModelLabels Labels(const std::string& text) {
  v1::ModelLabels labels;
  EXPECT_TRUE(ParseTextProto(text, "test", labels).ok());
  return labels;
}

std::string Wrong(const std::string& text) {
  return std::string(CheckModelLabels(Labels(text), "here").message());
}

// "stable/canary", "-" for none, and the complaint.
std::string Resolve(const std::string& text, const std::vector<std::string>& names,
                    const std::vector<std::string>& refused = {}) {
  std::vector<ModelFile> files;
  for (const std::string& name : names) {
    files.push_back({.name = name, .path = "/m/" + name, .stamp = {}});
  }
  const Rollout rollout = ResolveLabels(Labels(text), files, [&](const ModelFile& file) {
    return std::find(refused.begin(), refused.end(), file.name) != refused.end();
  });
  return (rollout.stable ? rollout.stable->name : "-") + "/" +
         (rollout.canary ? rollout.canary->name : "-") +
         (rollout.complaint.empty() ? "" : " " + rollout.complaint);
}

TEST(ModelLabels, RefusesLabelsThatContradictEachOther) {
  EXPECT_EQ(Wrong(""), "");
  EXPECT_EQ(Wrong("stable: 'v1' canary: '*' canary_share: 0.1"), "");
  EXPECT_THAT(Wrong("canary: 'v1' canary_share: 1.5"),
              HasSubstr("here: canary_share is 1.5; give 0 to 1"));
  EXPECT_THAT(Wrong("canary: 'v1' shadow_share: nan"), HasSubstr("shadow_share"));
  EXPECT_THAT(Wrong("canary: '*'"), HasSubstr("needs a stable one"));
  EXPECT_THAT(Wrong("stable: '*'"), HasSubstr("leave it empty"));
  EXPECT_THAT(Wrong("stable: 'v1' canary: 'v1'"), HasSubstr("both \"v1\""));
  EXPECT_THAT(Wrong("stable: 'v1' canary_share: 0.1"), HasSubstr("without a canary"));
}

TEST(ModelLabels, TheNewestVersionServesWhereNothingIsSaid) {
  EXPECT_EQ(Resolve("", {"v1", "v2", "v10"}), "v10/-");
  EXPECT_EQ(Resolve("", {}), "-/-");
}

TEST(ModelLabels, ARefusedVersionGivesWayToTheOneBeforeIt) {
  EXPECT_EQ(Resolve("", {"v1", "v2", "v10"}, {"v10"}), "v2/-");
  EXPECT_EQ(Resolve("", {"v1"}, {"v1"}), "-/-");
}

TEST(ModelLabels, ANamedVersionServesAndNoOther) {
  EXPECT_EQ(Resolve("stable: 'v1'", {"v1", "v2"}), "v1/-");
  EXPECT_EQ(Resolve("stable: 'v1'", {"v1", "v2"}, {"v1"}),
            "-/- stable is to be \"v1\", which was refused");
  EXPECT_EQ(Resolve("stable: 'v3'", {"v1", "v2"}),
            "-/- stable is to be \"v3\", which is not there; there are v1, v2");
}

TEST(ModelLabels, TheNewestIsTheCanaryAsLongAsItIsNewerThanTheStableOne) {
  EXPECT_EQ(Resolve("stable: 'v2' canary: '*'", {"v1", "v2", "v3", "v4"}), "v2/v4");
  EXPECT_EQ(Resolve("stable: 'v2' canary: '*'", {"v1", "v2", "v3"}, {"v3"}), "v2/-");
  EXPECT_EQ(Resolve("stable: 'v2' canary: '*'", {"v1", "v2"}), "v2/-");
}

TEST(ModelLabels, ANamedCanaryIsNotTheStableOne) {
  EXPECT_EQ(Resolve("canary: 'v3'", {"v1", "v2", "v3"}), "v2/v3");
  EXPECT_EQ(Resolve("canary: 'v9'", {"v1", "v2"}),
            "v2/- canary is to be \"v9\", which is not there; there are v1, v2");
}

}  // namespace
}  // namespace nestrec

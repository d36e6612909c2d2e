#include "model/stepper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "model/encoder.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int kMaxLen = 10;
constexpr int64_t kItems = 60;

// A model whose recurrences forget at the given rate: |lambda| is at most `radius`, which
// RandomModel draws up to 0.95.
class TestModel {
 public:
  TestModel(int blocks, double radius, uint64_t seed, const Architecture& architecture = {})
      : random_model_({.sizes = {4, 8, 24, 40},
                       .blocks = blocks,
                       .items = kItems,
                       .architecture = architecture,
                       .max_len = kMaxLen,
                       .seed = seed}) {
    ModelView view = random_model_.view();
    Random random(seed);
    for (std::vector<BlockLevel>& block : view.blocks) {
      for (BlockLevel& level : block) {
        std::vector<float>& nu_log = nu_logs_.emplace_back(level.lru.nu_log.size());
        for (float& value : nu_log) {
          value = static_cast<float>(std::log(-std::log(random.Uniform(0.3, 1.0) * radius)));
        }
        level.lru.nu_log = nu_log;
      }
    }
    encoder_ = *Encoder::Create(view, nullptr);
    auto stepper = Stepper::Create(encoder_.get());
    EXPECT_TRUE(stepper.ok()) << stepper.status();
    stepper_ = *std::move(stepper);
  }

  const Stepper& stepper() const { return *stepper_; }
  int levels() const { return encoder_->sizes().levels(); }
  int dim(int levels) const { return encoder_->sizes().end(levels - 1); }

  std::vector<float> Encode(const std::vector<int32_t>& history, int levels) const {
    std::vector<float> z(static_cast<size_t>(dim(levels)));
    const History span(history);
    EXPECT_TRUE(encoder_->Encode({&span, 1}, levels, z).ok());
    return z;
  }

 private:
  RandomModel random_model_;
  std::vector<std::vector<float>> nu_logs_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Stepper> stepper_;
};

void ExpectClose(const std::vector<float>& z, const std::vector<float>& expected,
                 const std::string& where) {
  ASSERT_EQ(z.size(), expected.size());
  double size = 0;
  double error = 0;
  for (size_t c = 0; c < z.size(); ++c) {
    size = std::max(size, std::abs(static_cast<double>(expected[c])));
    error = std::max(error, std::abs(static_cast<double>(z[c]) - expected[c]));
  }
  EXPECT_LE(error, 1e-5 * size) << where;
}

// A session as its log would hold it, and the definition of its answer.
struct Session {
  std::vector<int32_t> log;  // 0: not in the catalogue
  SessionState state;

  SessionInput Input(int levels, const std::vector<int32_t>& more = {}) const {
    return {.state = &state,
            .items = History(log).last(std::min<size_t>(log.size(), kMaxLen)),
            .end = static_cast<int64_t>(log.size()),
            .more = more,
            .levels = levels};
  }
  std::vector<int32_t> Window(const std::vector<int32_t>& more = {}) const {
    std::vector<int32_t> all = log;
    all.insert(all.end(), more.begin(), more.end());
    all.erase(all.begin(), all.end() - static_cast<int64_t>(std::min<size_t>(all.size(), kMaxLen)));
    std::erase(all, 0);
    return all;
  }
};

std::vector<int32_t> DrawItems(int64_t count, double unknown, Random& random) {
  std::vector<int32_t> items;
  for (int64_t i = 0; i < count; ++i) {
    items.push_back(random.Uniform() < unknown ? 0
                                               : static_cast<int32_t>(1 + random.Index(kItems)));
  }
  return items;
}

struct Kind {
  int blocks;
  double radius;
  Architecture architecture = {};
};

class StepperTest : public testing::TestWithParam<Kind> {};

TEST_P(StepperTest, EqualsTheEncoderInAnyOrderOfDimsAndEvents) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const TestModel model(GetParam().blocks, GetParam().radius, seed, GetParam().architecture);
    Random random(seed + 10);
    for (const double unknown : {0.0, 0.2}) {
      Session session;
      for (int round = 0; round < 80; ++round) {
        // No event, one, a few, or more than a window between two answers.
        const int64_t most =
            std::vector<int64_t>{1, 2, 4, 14}[static_cast<size_t>(random.Index(4))];
        for (const int32_t item : DrawItems(random.Index(most + 1), unknown, random)) {
          session.log.push_back(item);
        }
        const std::vector<int32_t> more =
            random.Index(4) == 0 ? DrawItems(random.Index(13), 0, random) : std::vector<int32_t>();
        const int levels = static_cast<int>(1 + random.Index(model.levels()));
        const SessionInput input = session.Input(levels, more);
        SessionOutput output;
        const absl::Status status = model.stepper().Run({&input, 1}, {&output, 1});
        ASSERT_TRUE(status.ok()) << status;
        ExpectClose(output.z, model.Encode(session.Window(more), levels),
                    absl::StrCat("round ", round, " of seed ", seed, ", ", session.log.size(),
                                 " events, ", more.size(), " more, levels ", levels, ", way ",
                                 static_cast<int>(output.way)));
        if (testing::Test::HasFailure()) return;
        session.state = std::move(output.state);
      }
    }
  }
}

TEST_P(StepperTest, ABatchOfMixedDimsHasTheBitsOfEverySessionAlone) {
  const TestModel model(GetParam().blocks, GetParam().radius, 4, GetParam().architecture);
  Random random(5);
  std::vector<Session> sessions(9);
  for (int round = 0; round < 12; ++round) {
    std::vector<SessionInput> inputs;
    std::vector<std::vector<int32_t>> mores;
    mores.reserve(sessions.size());
    for (Session& session : sessions) {
      for (const int32_t item : DrawItems(random.Index(4), 0.1, random))
        session.log.push_back(item);
      mores.push_back(DrawItems(random.Index(2) * random.Index(4), 0, random));
      inputs.push_back(
          session.Input(static_cast<int>(1 + random.Index(model.levels())), mores.back()));
    }
    std::vector<SessionOutput> together(sessions.size());
    ASSERT_TRUE(model.stepper().Run(inputs, together).ok());
    for (size_t i = 0; i < sessions.size(); ++i) {
      SessionOutput alone;
      ASSERT_TRUE(model.stepper().Run({&inputs[i], 1}, {&alone, 1}).ok());
      EXPECT_EQ(together[i].z, alone.z);
      EXPECT_EQ(together[i].way, alone.way);
      sessions[i].state = std::move(together[i].state);
      for (int level = 0; level < sessions[i].state.levels(); ++level) {
        EXPECT_EQ(sessions[i].state.absorbed(level), alone.state.absorbed(level));
        for (int plane = 0; plane < model.stepper().planes(); ++plane) {
          EXPECT_THAT(sessions[i].state.plane(level, plane),
                      testing::ElementsAreArray(alone.state.plane(level, plane)));
        }
      }
    }
  }
}

TEST_P(StepperTest, ANarrowStateIsThePrefixOfAWideOneBitForBit) {
  const TestModel model(GetParam().blocks, GetParam().radius, 6, GetParam().architecture);
  Random random(7);
  Session wide, narrow;
  for (int event = 0; event < kMaxLen; ++event) {
    wide.log.push_back(static_cast<int32_t>(1 + random.Index(kItems)));
    narrow.log = wide.log;
    const std::vector<SessionInput> inputs = {wide.Input(model.levels()), narrow.Input(2)};
    std::vector<SessionOutput> outputs(2);
    ASSERT_TRUE(model.stepper().Run(inputs, outputs).ok());
    wide.state = std::move(outputs[0].state);
    narrow.state = std::move(outputs[1].state);
    ASSERT_EQ(narrow.state.levels(), 2);
    for (int level = 0; level < 2; ++level) {
      for (int plane = 0; plane < model.stepper().planes(); ++plane) {
        EXPECT_THAT(narrow.state.plane(level, plane),
                    testing::ElementsAreArray(wide.state.plane(level, plane)));
      }
    }
    EXPECT_THAT(outputs[1].z, testing::ElementsAreArray(outputs[0].z.data(), outputs[1].z.size()));
  }
}

// Any width may be sure, and any wider one be where time is over.
TEST_P(StepperTest, GoingOnLevelByLevelHasTheBitsOfTheWidthWhereItEnds) {
  const TestModel model(GetParam().blocks, GetParam().radius, 8, GetParam().architecture);
  Random random(9);
  Session session;
  int widened = 0;
  for (int round = 0; round < 150; ++round) {
    for (const int32_t item : DrawItems(random.Index(3), 0.1, random)) session.log.push_back(item);
    const std::vector<int32_t> more =
        random.Index(5) == 0 ? DrawItems(random.Index(4), 0, random) : std::vector<int32_t>();
    const int sure = static_cast<int>(1 + random.Index(model.levels()));
    const int stop = static_cast<int>(sure + random.Index(model.levels() - sure + 1));
    SessionInput input = session.Input(sure, more);
    input.most_levels = model.levels();
    SessionOutput anytime;
    std::vector<int> asked;
    ASSERT_TRUE(model.stepper()
                    .Run({&input, 1}, {&anytime, 1},
                         [&](size_t which, int finished) {
                           EXPECT_EQ(which, 0u);
                           asked.push_back(finished);
                           return finished < stop;
                         })
                    .ok());
    ASSERT_GE(anytime.finished, sure);
    for (size_t i = 0; i < asked.size(); ++i) EXPECT_EQ(asked[i], sure + static_cast<int>(i));
    if (!asked.empty()) {
      EXPECT_LE(anytime.finished, stop);
    }
    widened += anytime.finished > sure ? 1 : 0;
    ExpectClose(anytime.z, model.Encode(session.Window(more), anytime.finished),
                absl::StrCat("round ", round));
    const SessionInput straight = session.Input(anytime.finished, more);
    SessionOutput expected;
    ASSERT_TRUE(model.stepper().Run({&straight, 1}, {&expected, 1}).ok());
    EXPECT_EQ(anytime.z, expected.z);
    EXPECT_EQ(expected.finished, anytime.finished);
    // No level that was not computed takes room, and the session goes on from here as well.
    ASSERT_EQ(anytime.state.levels(), expected.state.levels());
    for (int level = 0; level < anytime.state.levels(); ++level) {
      EXPECT_EQ(anytime.state.absorbed(level), expected.state.absorbed(level));
      for (int plane = 0; plane < model.stepper().planes(); ++plane) {
        EXPECT_THAT(anytime.state.plane(level, plane),
                    testing::ElementsAreArray(expected.state.plane(level, plane)));
      }
    }
    session.state = std::move(anytime.state);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(widened, 20);
}

TEST_P(StepperTest, AtTheFirstNoAllThatOnlyHopedForMoreEnd) {
  const TestModel model(GetParam().blocks, GetParam().radius, 8, GetParam().architecture);
  const std::vector<int32_t> items = {5, 6, 7};
  const auto input = [&](int levels, int most) {
    return SessionInput{
        .items = items, .end = 3, .more = {}, .levels = levels, .most_levels = most};
  };
  const std::vector<SessionInput> inputs = {input(1, 4), input(3, 3), input(2, 4), input(1, 2)};
  std::vector<SessionOutput> outputs(inputs.size());
  std::vector<std::pair<size_t, int>> asked;
  ASSERT_TRUE(model.stepper()
                  .Run(inputs, outputs,
                       [&](size_t which, int finished) {
                         asked.emplace_back(which, finished);
                         return finished < 2;
                       })
                  .ok());
  EXPECT_THAT(asked,
              testing::ElementsAre(std::pair<size_t, int>(0, 1), std::pair<size_t, int>(3, 1),
                                   std::pair<size_t, int>(2, 2)));
  const std::vector<int> finished = {2, 3, 2, 2};
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].finished, finished[i]);
    const SessionInput alone = input(finished[i], finished[i]);
    SessionOutput expected;
    ASSERT_TRUE(model.stepper().Run({&alone, 1}, {&expected, 1}).ok());
    EXPECT_EQ(outputs[i].z, expected.z);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, StepperTest,
    testing::Values(
        Kind{1, 0.95}, Kind{1, 0.2}, Kind{2, 0.95}, Kind{2, 0.2}, Kind{3, 0.15},
        Kind{1,
             0.95,
             {.feed_forward = FeedForward::kRelu, .final_norm = true, .input_scale = 3.0f}}),
    [](const auto& info) {
      return absl::StrCat(info.param.blocks, "Blocks",
                          info.param.radius < 0.5 ? "Forgetting" : "Keeping",
                          info.param.architecture.final_norm ? "ReluNorm" : "");
    });

SessionOutput MustRun(const TestModel& model, Session& session, int levels,
                      const std::vector<int32_t>& more = {}) {
  const SessionInput input = session.Input(levels, more);
  SessionOutput output;
  const absl::Status status = model.stepper().Run({&input, 1}, {&output, 1});
  EXPECT_TRUE(status.ok()) << status;
  session.state = output.state;
  return output;
}

TEST(StepperCostTest, OneEventIsOneItemAndNoEventIsNone) {
  const TestModel model(2, 0.95, 1);
  Session session{.log = {3, 1, 4}, .state = {}};
  EXPECT_EQ(MustRun(model, session, 4).way, StepWay::kReplayed);
  SessionOutput output = MustRun(model, session, 4);
  EXPECT_EQ(output.way, StepWay::kRemembered);
  EXPECT_EQ(output.computed, 0);
  session.log.push_back(9);
  output = MustRun(model, session, 4);
  EXPECT_EQ(output.way, StepWay::kStepped);
  EXPECT_EQ(output.computed, 1);
  EXPECT_EQ(MustRun(model, session, 2).way, StepWay::kRemembered);
}

TEST(StepperCostTest, ALaggingLevelCatchesUpAloneInOneBlockAndReplaysInTwo) {
  for (const int blocks : {1, 2}) {
    const TestModel model(blocks, 0.95, 1);
    Session session{.log = {3, 1, 4}, .state = {}};
    MustRun(model, session, 4);
    session.log.push_back(5);
    MustRun(model, session, 1);
    EXPECT_EQ(session.state.absorbed(0).end, 4);
    EXPECT_EQ(session.state.absorbed(3).end, 3);
    session.log.push_back(9);
    const SessionOutput output = MustRun(model, session, 4);
    EXPECT_EQ(output.way, blocks == 1 ? StepWay::kStepped : StepWay::kReplayed);
    EXPECT_EQ(output.computed, blocks == 1 ? 1 : 5);
    EXPECT_EQ(session.state.absorbed(3).end, 5);
  }
}

TEST(StepperCostTest, RunsOnBeyondTheWindowOnlyWhereTheModelForgets) {
  for (const double radius : {0.2, 0.95}) {
    const TestModel model(1, radius, 2);
    Session session;
    for (int event = 0; event < 3 * kMaxLen; ++event) {
      session.log.push_back(1 + event % 7);
      const SessionOutput output = MustRun(model, session, 4);
      if (event == 0 || (event >= kMaxLen && radius > 0.5)) {
        EXPECT_EQ(output.way, StepWay::kReplayed) << event;
      } else {
        EXPECT_EQ(output.way, StepWay::kStepped) << event;
      }
    }
    EXPECT_EQ(model.stepper().runs_on(4), radius < 0.5);
  }
}

TEST(StepperCostTest, WhatFollowsForOneAnswerIsNotKept) {
  const TestModel model(2, 0.95, 3);
  Session session{.log = {3, 1, 4}, .state = {}};
  const std::vector<float> before = MustRun(model, session, 3).z;
  EXPECT_NE(MustRun(model, session, 3, {7, 8}).z, before);
  EXPECT_EQ(MustRun(model, session, 3).z, before);
  EXPECT_EQ(session.state.absorbed(0).end, 3);
}

TEST(StepperCostTest, HopingForAWiderLevelNeverMakesAStepAReplay) {
  const TestModel model(2, 0.95, 1);
  Session session{.log = {3, 1, 4}, .state = {}};
  MustRun(model, session, 2);
  session.log.push_back(5);
  SessionInput input = session.Input(2);
  input.most_levels = 4;
  SessionOutput output;
  ASSERT_TRUE(
      model.stepper().Run({&input, 1}, {&output, 1}, [](size_t, int) { return true; }).ok());
  EXPECT_EQ(output.way, StepWay::kStepped);
  EXPECT_EQ(output.computed, 1);
  EXPECT_EQ(output.finished, 2);
}

TEST(StepperCostTest, WhatIsRememberedIsGivenAsWideAsItIs) {
  const TestModel model(2, 0.95, 1);
  Session session{.log = {3, 1, 4}, .state = {}};
  MustRun(model, session, 3);
  SessionInput input = session.Input(1);
  input.most_levels = 4;
  SessionOutput output;
  ASSERT_TRUE(
      model.stepper().Run({&input, 1}, {&output, 1}, [](size_t, int) { return false; }).ok());
  EXPECT_EQ(output.way, StepWay::kRemembered);
  EXPECT_EQ(output.finished, 3);
  EXPECT_EQ(output.z, MustRun(model, session, 3).z);
}

TEST(StepperCostTest, CountsTheWeightsThatAStepReads) {
  const TestModel model(2, 0.95, 3);
  // 7 nested layers of sum over levels w_j s_j, two blocks.
  EXPECT_EQ(model.stepper().StepBytes(2), 2 * 7 * (4 * 4 + 4 * 8) * 4);
  EXPECT_EQ(model.stepper().StepFlops(2), 2 * 2 * 7 * (4 * 4 + 4 * 8));
}

TEST(StepperErrorTest, RefusesOtherMixers) {
  for (const Mixer mixer : {Mixer::kGru, Mixer::kAttention}) {
    const RandomModel model({.architecture = {.mixer = mixer}});
    const auto encoder = *Encoder::Create(model.view(), nullptr);
    const absl::Status status = Stepper::Create(encoder.get()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(MixerName(mixer))));
  }
}

TEST(StepperErrorTest, NamesWhatIsWrong) {
  const TestModel model(1, 0.95, 3);
  const std::vector<int32_t> good = {1, 2}, unknown = {0}, beyond = {1, kItems + 1};
  const auto run = [&](const SessionInput& input) {
    SessionOutput output;
    return std::string(model.stepper().Run({&input, 1}, {&output, 1}).message());
  };
  EXPECT_THAT(run({.items = good, .end = 2, .more = {}, .levels = 0}),
              HasSubstr("levels: 0 is outside 1..4"));
  EXPECT_THAT(run({.items = good, .end = 2, .more = {}, .levels = 5}), HasSubstr("levels: 5"));
  EXPECT_THAT(run({.items = good, .end = 2, .more = {}, .levels = 3, .most_levels = 2}),
              HasSubstr("most_levels: 2 is less than levels, 3"));
  EXPECT_THAT(run({.items = good, .end = 2, .more = {}, .levels = 3, .most_levels = 5}),
              HasSubstr("most_levels: 5 is outside 1..4"));
  EXPECT_THAT(run({.items = beyond, .end = 2, .more = {}, .levels = 1}),
              HasSubstr("items: item number 61 is outside 0..60"));
  EXPECT_THAT(run({.items = good, .end = 2, .more = unknown, .levels = 1}),
              HasSubstr("more: item number 0 is outside 1..60"));
  EXPECT_THAT(run({.items = good, .end = 1, .more = {}, .levels = 1}),
              HasSubstr("end: 1 is less than the 2 items"));
  std::vector<SessionOutput> one(1);
  EXPECT_EQ(model.stepper().Run({}, one).message(), "0 inputs, but 1 outputs");
  EXPECT_TRUE(model.stepper().Run({}, {}).ok());
}

TEST(SessionStateTest, MergingKeepsTheFurtherOfEveryLevel) {
  const TestModel model(1, 0.95, 8);
  Session session{.log = {3, 1, 4}, .state = {}};
  MustRun(model, session, 4);
  const SessionState wide = session.state;
  session.log.push_back(5);
  MustRun(model, session, 2);
  SessionState merged = wide;
  merged.MergeFrom(session.state, model.stepper().sizes(), model.stepper().planes());
  for (int level = 0; level < 4; ++level) {
    const SessionState& expected = level < 2 ? session.state : wide;
    EXPECT_EQ(merged.absorbed(level), expected.absorbed(level));
    for (int plane = 0; plane < model.stepper().planes(); ++plane) {
      EXPECT_THAT(merged.plane(level, plane),
                  testing::ElementsAreArray(expected.plane(level, plane)));
    }
  }
  EXPECT_GT(merged.bytes(), 3 * 40 * sizeof(float));
}

}  // namespace
}  // namespace nestrec

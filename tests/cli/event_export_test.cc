// From a running server's request log to a data folder: serve, record, export, prepare.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "server/client.h"
#include "tests/cli/program.h"
#include "tests/server/serve_program.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kUsers = 6;
constexpr int kEvents = 6;

std::vector<std::string> LinesOf(const std::string& path) {
  return absl::StrSplit(ReadFile(path).value_or(""), '\n', absl::SkipEmpty());
}

TEST(EventExport, WhatAServerRecordedComesBackAsADataFolder) {
  const TempFolder folder;
  const std::string log = folder.File("requests.jsonl");
  {
    // Files so small that they are put aside.
    ServeProgram program({.program = NESTREC_PROGRAM,
                          .more = {"--request-log", log, "--request-log-share", "1",
                                   "--request-log-bytes", "65536"}});
    ASSERT_TRUE(program.Start().ok());
    const RecommendClient client = program.Client();
    for (int event = 0; event < kEvents; ++event) {
      for (int user = 0; user < kUsers; ++user) {
        v1::RecordEventsRequest request;
        request.set_user_id(absl::StrCat("user \"", user, "\""));
        // Each user walks through the items from another one on.
        request.add_item_ids(RandomModelItemId(1 + (user + event) % kEvents));
        request.add_timestamps()->set_seconds(1'700'000'000 + event);
        request.mutable_timestamps(0)->set_nanos(5'000'000);
        ASSERT_TRUE(client.RecordEvents(request).ok());
      }
      ASSERT_TRUE(client.Recommend({}).ok());  // a line of another kind
    }
    v1::RecordEventsRequest request;
    request.set_user_id("forgotten");
    request.add_item_ids("item-1");
    ASSERT_TRUE(client.RecordEvents(request).ok());
    v1::ForgetUserRequest forget;
    forget.set_user_id("forgotten");
    ASSERT_TRUE(client.ForgetUser(forget).ok());
    program.child().Signal(SIGTERM);
    ASSERT_EQ(program.child().WaitForExit().value_or(-1), 0);
  }
  const std::string raw = folder.File("raw.jsonl");
  const ProgramResult exported = RunProgram({"export", "--events", log, "-o", raw});
  ASSERT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_THAT(exported.output, HasSubstr(absl::StrCat("wrote ", raw, ": 36 events of 6 users\n")));
  EXPECT_THAT(exported.output, HasSubstr("left out: 1 events of users that were forgotten\n"));
  const std::vector<std::string> lines = LinesOf(raw);
  ASSERT_EQ(lines.size(), static_cast<size_t>(kUsers * kEvents));
  EXPECT_EQ(lines[0],
            "{\"user_id\":\"user \\\"0\\\"\",\"item_id\":\"item-1\",\"timestamp\":1700000000.005}");

  const std::string data = folder.File("data");
  const ProgramResult prepared =
      RunProgram({"prepare", "--events", raw, "--no-text", "--out", data, "--k-core", "5"});
  ASSERT_EQ(prepared.exit_code, 0) << prepared.output;
  const std::vector<std::string> users = LinesOf(data + "/interactions.txt");
  ASSERT_EQ(users.size(), static_cast<size_t>(kUsers));
  const std::vector<std::string> items = LinesOf(data + "/items.jsonl");
  ASSERT_EQ(items.size(), static_cast<size_t>(kEvents));
  // Every user's items, in the order in which they were recorded.
  for (const std::string& line : users) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    ASSERT_EQ(words.size(), static_cast<size_t>(1 + kEvents)) << line;
    const size_t quote = line.find('"');
    int user = quote == std::string::npos ? -1 : line[quote + 1] - '0';
    for (int candidate = 0; user < 0 && candidate < kUsers; ++candidate) {
      if (absl::StrContains(words[0], absl::StrCat(candidate))) user = candidate;
    }
    for (int event = 0; event < kEvents; ++event) {
      const auto number = static_cast<size_t>(std::stoi(words[static_cast<size_t>(1 + event)]));
      EXPECT_THAT(
          items[number - 1],
          HasSubstr(absl::StrCat("\"", RandomModelItemId(1 + (user + event) % kEvents), "\"")))
          << line;
    }
  }
}

TEST(EventExport, ReadsFilesThatWerePutAsideAndPassesOverWhatIsNoRecord) {
  const TempFolder folder;
  const std::string log = folder.File("log");
  const auto events = [](const char* time, const char* user, const char* item) {
    return absl::StrCat(R"({"type":"events","time":")", time, R"(","user_id":")", user,
                        R"(","events":[{"item_id":")", item, R"(","time_ms":-1500}]})", "\n");
  };
  ASSERT_TRUE(WriteFileAtomically(log + ".1", events("2025-01-01T00:00:00.000Z", "a", "old")).ok());
  ASSERT_TRUE(WriteFileAtomically(
                  log, absl::StrCat(events("2025-01-02T00:00:00.000Z", "b", "before"),
                                    R"({"type":"forget","time":"2025-01-03T00:00:00.000Z",)",
                                    R"("user_id":"b"})", "\n",
                                    events("2025-01-04T00:00:00.000Z", "b", "after"),
                                    "{\"type\":\"events\",\"time\":\"2025-01\nnull\n[1]\n",
                                    R"({"type":"events","time":"","user_id":"a","events":[7]})",
                                    "\n{\"type\":\"something new\"}\n"))
                  .ok());
  const std::string raw = folder.File("raw.jsonl");
  const ProgramResult exported = RunProgram({"export", "--events", log, "-o", raw});
  ASSERT_EQ(exported.exit_code, 0) << exported.output;
  EXPECT_THAT(LinesOf(raw), ElementsAre(R"({"user_id":"a","item_id":"old","timestamp":-1.500})",
                                        R"({"user_id":"b","item_id":"after","timestamp":-1.500})"));
  EXPECT_THAT(exported.output, HasSubstr("left out: 4 lines that are no records"));
}

TEST(EventExport, SaysWhatIsMissing) {
  const TempFolder folder;
  const std::string raw = folder.File("raw.jsonl");
  const ProgramResult none = RunProgram({"export", "--events", folder.File("none"), "-o", raw});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.output, HasSubstr("none is not there; give the path that a server got"));
  ASSERT_TRUE(WriteFileAtomically(folder.File("empty"), "").ok());
  const ProgramResult empty = RunProgram({"export", "--events", folder.File("empty"), "-o", raw});
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_THAT(empty.output, HasSubstr("empty has no events"));
  EXPECT_FALSE(FileExists(raw));
  EXPECT_EQ(RunProgram({"export", "-o", raw}).exit_code, 2);
  EXPECT_EQ(RunProgram({"export", "--events", "a", "--model", "b", "-o", raw}).exit_code, 2);
}

}  // namespace
}  // namespace nestrec

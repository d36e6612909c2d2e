// The bytes of the embedded session log, and what recovery makes of damaged ones.
#include "server/session/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "server/session/session_record.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

SessionRecord Record(int number, int events = 2) {
  SessionRecord record{.type = SessionRecord::Type::kAppend,
                       .user_id = absl::StrCat("user ", number),
                       .session = 77u + static_cast<uint64_t>(number),
                       .first = number * 1000,
                       .recorded_ms = 1'700'000'000'000 + number,
                       .calls = {HashCallId(absl::StrCat("call ", number))},
                       .events = {}};
  for (int i = 0; i < events; ++i) {
    record.events.push_back(
        {absl::StrCat("品目-", i), absl::FromUnixMillis(1'600'000'000'000 + i)});
  }
  return record;
}

class EventFileTest : public testing::Test {
 protected:
  std::string Path() const { return SessionFilePath(folder_.path(), SessionFileKind::kEvents, 1); }

  // A file of `count` records; where each begins, and the end.
  std::vector<uint64_t> WriteFile(int count) {
    auto file = EventFile::Create(folder_.path(), 1);
    EXPECT_TRUE(file.ok()) << file.status();
    std::vector<uint64_t> begins;
    for (int i = 0; i < count; ++i) {
      begins.push_back((*file)->size_bytes());
      std::string bytes;
      AppendFrame(Record(i), FileIdOf(SessionFileKind::kEvents, 1), (*file)->size_bytes(), bytes);
      EXPECT_TRUE((*file)->Append(bytes, i % 2 == 0).ok());
    }
    begins.push_back((*file)->size_bytes());
    return begins;
  }

  // Without a sync, which hundreds of files would feel.
  void Put(const std::string& bytes) const {
    std::ofstream(Path(), std::ios::binary | std::ios::trunc) << bytes;
  }

  absl::StatusOr<EventFileEnd> Read(bool is_last) {
    read_.clear();
    return ReadEventFile(Path(), 1, is_last, [&](const SessionRecord& record) {
      read_.push_back(record);
      return absl::OkStatus();
    });
  }

  TempFolder folder_;
  std::vector<SessionRecord> read_;
};

TEST_F(EventFileTest, GivesBackWhatWasWritten) {
  const std::vector<uint64_t> begins = WriteFile(5);
  const auto end = Read(true);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->size_bytes, begins.back());
  EXPECT_EQ(end->dropped_bytes, 0u);
  ASSERT_EQ(read_.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(read_[static_cast<size_t>(i)], Record(i));
}

TEST_F(EventFileTest, KeepsWhatEveryCutLeavesWhole) {
  const std::vector<uint64_t> begins = WriteFile(3);
  const std::string bytes = *ReadFile(Path());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    Put(bytes.substr(0, cut));
    const auto end = Read(true);
    ASSERT_TRUE(end.ok()) << cut << " " << end.status();
    size_t whole = 0;
    while (begins[whole + 1] <= cut) ++whole;
    EXPECT_EQ(read_.size(), cut < kSessionFileHeaderBytes ? 0 : whole) << cut;
    EXPECT_EQ(end->size_bytes, cut < kSessionFileHeaderBytes ? 0 : begins[whole]) << cut;
    EXPECT_EQ(end->size_bytes + end->dropped_bytes, cut);
    if (cut < begins.back() && cut != begins[whole]) {
      EXPECT_EQ(Read(false).status().code(), absl::StatusCode::kDataLoss) << cut;
    }
  }
}

TEST_F(EventFileTest, NoFlippedBitIsTakenForARecord) {
  const std::vector<uint64_t> begins = WriteFile(3);
  const std::string bytes = *ReadFile(Path());
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    Put(damaged);
    const auto end = Read(true);
    if (at >= begins[2]) {  // in the last record: as if its write had not been completed
      ASSERT_TRUE(end.ok()) << at;
      EXPECT_EQ(read_.size(), 2u);
      EXPECT_EQ(end->size_bytes, begins[2]);
    } else {
      ASSERT_FALSE(end.ok()) << at;
      EXPECT_THAT(std::string(end.status().message()), HasSubstr(Path()));
    }
  }
}

TEST_F(EventFileTest, NamesThePlaceOfDamageAndTheCure) {
  const std::vector<uint64_t> begins = WriteFile(3);
  std::string bytes = *ReadFile(Path());
  bytes[begins[1] + 20] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(Path(), bytes).ok());
  const auto end = Read(true);
  EXPECT_EQ(end.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(end.status().message()),
              HasSubstr(absl::StrCat("is damaged at byte ", begins[1], " of ", bytes.size(),
                                     ": whole records follow at byte ", begins[2])));
  EXPECT_THAT(std::string(end.status().message()),
              HasSubstr(absl::StrCat("truncate -s ", begins[1])));
}

TEST_F(EventFileTest, RecordsOfAnotherPlaceOrFileAreNone) {
  std::string bytes;
  AppendFrame(Record(1), 4, 100, bytes);
  EXPECT_TRUE(ReadFrame(bytes, 4, 100).has_value());
  EXPECT_FALSE(ReadFrame(bytes, 4, 101).has_value());
  EXPECT_FALSE(ReadFrame(bytes, 5, 100).has_value());
}

TEST_F(EventFileTest, RefusesOtherFilesAndVersions) {
  WriteFile(1);
  const std::string bytes = *ReadFile(Path());
  ASSERT_TRUE(WriteFileAtomically(Path(), std::string(100, 'x')).ok());
  EXPECT_EQ(Read(true).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFileAtomically(Path(), SessionFileHeader(SessionFileKind::kSnapshot, 1)).ok());
  EXPECT_EQ(Read(true).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(WriteFileAtomically(Path(), SessionFileHeader(SessionFileKind::kEvents, 2)).ok());
  EXPECT_THAT(std::string(Read(true).status().message()),
              HasSubstr("its header says number 2 and its name 1"));
}

TEST_F(EventFileTest, ListsItsOwnFilesAlone) {
  WriteFile(1);
  for (const char* name : {"snapshot-000000000003", "events-000000000012.log", "events-12.log",
                           "events-00000000001x.log", "lock", "snapshot-000000000003.tmp.x"}) {
    ASSERT_TRUE(WriteFileAtomically(folder_.File(name), "").ok());
  }
  const auto files = ListSessionFiles(folder_.path());
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(files->events, testing::ElementsAre(1, 12));
  EXPECT_THAT(files->snapshots, testing::ElementsAre(3));
}

}  // namespace
}  // namespace nestrec

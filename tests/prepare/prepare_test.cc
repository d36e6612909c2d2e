#include "model/prepare/prepare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/npy.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/dataset.h"
#include "model/prepare/synthetic_shop.h"
#include "nlohmann/json.hpp"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PrepareTest : public ::testing::Test {
 protected:
  PrepareTest() {
    options_.events = {folder_.File("events.csv")};
    options_.out = folder_.File("out");
    options_.k_core = 0;
    options_.text.width = 4;
  }

  void Write(const std::string& name, const std::string& content) {
    ASSERT_TRUE(WriteFileAtomically(folder_.File(name), content).ok());
  }
  void WriteEvents(const std::string& lines) {
    Write("events.csv", "user,item,timestamp\n" + lines);
  }
  void WriteCatalogue(const std::string& content) {
    Write("catalogue.jsonl", content);
    options_.catalogues = {folder_.File("catalogue.jsonl")};
  }
  absl::StatusOr<PrepareReport> Run() {
    return Prepare(options_, [](absl::string_view, double) {});
  }
  void ExpectError(absl::StatusCode code, const std::string& part) {
    const auto report = Run();
    EXPECT_EQ(report.status().code(), code) << report.status();
    EXPECT_THAT(std::string(report.status().message()), HasSubstr(part));
  }
  std::string Out(const std::string& name) {
    return ReadFile(folder_.File("out/" + name)).value_or("(none)");
  }

  TempFolder folder_;
  PrepareOptions options_;
};

TEST_F(PrepareTest, OrdersByTimeAndNumbersByFirstAppearance) {
  WriteEvents(
      "Ann Lee,c,30\nbob,x y,5\nAnn Lee,a,10\nbob,c,5\nAnn Lee,b,20\nbob,\"é,1\",1\nAnn "
      "Lee,a,40\n");
  const auto report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  // Ann comes first in the log; items are numbered along her sequence, then bob's, whose tie keeps
  // the log's order.
  EXPECT_EQ(Out("interactions.txt"), "Ann%20Lee 1 2 3 1\nbob 4 5 3\n");
  EXPECT_EQ(Out("items.jsonl"),
            "{\"item_id\":\"a\"}\n{\"item_id\":\"b\"}\n{\"item_id\":\"c\"}\n{\"item_id\":\"é,1\"}"
            "\n{\"item_id\":\"x y\"}\n");
  EXPECT_EQ(report->events, 7);
  EXPECT_EQ(report->longest, 4);
  EXPECT_EQ(report->shortest, 3);
  const auto data = Dataset::Load(options_.out, {.load_features = false});
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->user_ids[0], "Ann Lee");
  EXPECT_EQ((*data)->catalogue->Find("é,1"), 4);
}

TEST_F(PrepareTest, ReadsSeveralLogsAsOne) {
  WriteEvents("u,a,1\nu,b,3\n");
  Write("more.jsonl",
        "{\"user\":\"u\",\"item\":\"c\",\"ts\":2}\n{\"user\":\"v\",\"item\":\"a\",\"ts\":2}\n");
  options_.events.push_back(folder_.File("more.jsonl"));
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Out("interactions.txt"), "u 1 2 3\nv 1\n");
}

TEST_F(PrepareTest, CountsWhatItDrops) {
  Write("events.csv",
        "user,item,timestamp,rating\nu,a,1,5\nu,a,1,5\nu,b,2,5\nu,b,3,4\nu,c,4,1\nu,d,5,\nbad "
        "line\nv,a,1,5\nv,b,2,5\n"
        "w,e,1,5\n");
  options_.min_rating = 2;
  options_.repeats = Repeats::kFirst;
  options_.k_core = 2;
  const auto report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->lines, 10);
  EXPECT_EQ(report->bad_lines, 1);
  EXPECT_EQ(report->below_min_rating, 2);
  EXPECT_EQ(report->duplicates, 1);
  EXPECT_EQ(report->repeats, 1);
  EXPECT_EQ(report->outside_core, 1);
  EXPECT_EQ(report->events, 4);
  EXPECT_EQ(report->users_read, 3);
  EXPECT_EQ(report->users, 2);
  EXPECT_EQ(report->items, 2);
  EXPECT_EQ(Out("interactions.txt"), "u 1 2\nv 1 2\n");
  const auto json = nlohmann::json::parse(Out("prepare_report.json"), nullptr, false);
  EXPECT_EQ(json["below_min_rating"], 2);
  EXPECT_EQ(json["options"]["repeats"], "first");
  EXPECT_THAT(json["bad_line_messages"][0].get<std::string>(), HasSubstr("events.csv:8: 1 field"));
  EXPECT_THAT(report->ToText(), HasSubstr("events.csv:8: 1 field"));
}

TEST_F(PrepareTest, WithoutTimesNothingIsADuplicate) {
  Write("events.csv", "user,item\nu,b\nu,a\nu,b\n");
  options_.event_format.without_timestamps = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Out("interactions.txt"), "u 1 2 1\n");
}

TEST_F(PrepareTest, JoinsTheCatalogue) {
  WriteEvents("u,a,1\nu,b,2\nu,c,3\n");
  WriteCatalogue(
      "{'asin': 'b', 'title': 'Red Soap', 'price': 1.5, 'categories': [['Bath', 'Soap']]}\n"
      "{'asin': 'other', 'title': 'Not in the log'}\n"
      "{'asin': 'b', 'title': 'again'}\nbroken\n"
      "{'asin': 'a', 'title': 'Blue Soap', 'id': 99}\n");
  const auto report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(Out("items.jsonl"),
            "{\"item_id\":\"a\",\"asin\":\"a\",\"title\":\"Blue Soap\",\"source_id\":99}\n"
            "{\"item_id\":\"b\",\"asin\":\"b\",\"title\":\"Red "
            "Soap\",\"price\":1.5,\"categories\":[[\"Bath\",\"Soap\"]]}\n"
            "{\"item_id\":\"c\"}\n");
  EXPECT_EQ(report->catalogue_rows, 5);
  EXPECT_EQ(report->catalogue_bad_lines, 1);
  EXPECT_EQ(report->catalogue_duplicates, 1);
  EXPECT_EQ(report->items_without_record, 1);
  const auto data = Dataset::Load(options_.out, {});
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_THAT((*data)->modalities[0].features.row(2), Each(0.0F));
}

TEST_F(PrepareTest, DropsItemsWithoutMetadataBeforeTheCore) {
  WriteEvents("u,a,1\nu,b,2\nu,none,3\nv,a,1\nv,b,2\nw,none,1\nw,a,2\n");
  WriteCatalogue(
      "{\"item_id\":\"a\",\"title\":\"soap\"}\n{\"item_id\":\"b\",\"title\":\"soap\"}\n{\"item_"
      "id\":\"none\",\"x\":1}\n");
  options_.k_core = 2;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Out("interactions.txt"), "u 1 2 3\nv 1 2\nw 3 1\n");
  options_.drop_without_metadata = true;
  options_.overwrite = true;
  const auto report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->without_metadata, 2);
  EXPECT_EQ(Out("interactions.txt"), "u 1 2\nv 1 2\n");
}

// A new item's text, encoded by the saved encoder, gives what is in text.npy for an item of that
// text.
TEST_F(PrepareTest, TextFeaturesAreWhatTheSavedEncoderSaysBitForBit) {
  const auto shop = MakeSyntheticShop({.users = 300, .items = 150, .seed = 2});
  ASSERT_TRUE(shop.ok());
  ASSERT_TRUE(WriteSyntheticShop(*shop, folder_.path()).ok());
  options_.catalogues = {folder_.File("catalogue.jsonl")};
  options_.k_core = 5;
  options_.text.width = 40;
  ASSERT_TRUE(Run().ok());
  const auto data = Dataset::Load(options_.out, {});
  ASSERT_TRUE(data.ok()) << data.status();
  const auto file =
      SafetensorsFile::Open(folder_.File("out/features/text.encoder.safetensors"), true);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto encoder = TextEncoder::Load(**file, "");
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  EXPECT_THAT(encoder->fields(), ElementsAre("title", "price", "brand", "categories"));
  for (int64_t item = 1; item <= (*data)->items(); ++item) {
    const std::vector<float> again =
        encoder->Encode(ItemText((*data)->catalogue->record(item), encoder->fields()));
    const std::span<const float> stored = (*data)->modalities[0].features.row(item - 1);
    ASSERT_EQ(again.size(), stored.size());
    ASSERT_EQ(std::memcmp(again.data(), stored.data(), stored.size_bytes()), 0) << item;
  }
}

TEST_F(PrepareTest, TheSameInputGivesTheSameBytes) {
  const auto shop = MakeSyntheticShop({.users = 200, .items = 100, .seed = 3});
  ASSERT_TRUE(WriteSyntheticShop(*shop, folder_.path()).ok());
  options_.catalogues = {folder_.File("catalogue.jsonl")};
  ASSERT_TRUE(Run().ok());
  const std::vector<std::string> names = {"interactions.txt", "items.jsonl", "features/text.npy",
                                          "features/text.encoder.safetensors"};
  std::vector<std::string> first;
  for (const std::string& name : names) first.push_back(Out(name));
  options_.overwrite = true;
  ASSERT_TRUE(Run().ok());
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(Out(names[i]), first[i]) << names[i];
}

TEST_F(PrepareTest, TakesReadyFeaturesInTheCataloguesOrder) {
  WriteEvents("u,c,1\nu,a,2\nu,z,3\n");
  WriteCatalogue("{\"item_id\":\"a\"}\n\nbroken\n{\"item_id\":\"b\"}\n{\"item_id\":\"c\"}\n");
  options_.make_text = false;
  Matrix matrix{.rows = 4, .columns = 2, .values = {1, 1, 9, 9, 2, 2, 3, 3}};
  ASSERT_TRUE(WriteNpy(folder_.File("image.npy"), matrix).ok());
  options_.features = {{.name = "image", .path = folder_.File("image.npy"), .ids_path = {}}};
  const auto report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  const auto written = ReadNpy(folder_.File("out/features/image.npy"));
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_THAT(written->values, ElementsAre(3, 3, 1, 1, 0, 0));
  ASSERT_EQ(report->features.size(), 1u);
  EXPECT_EQ(report->features[0].items_without, 1);
  matrix = {.rows = 3, .columns = 2, .values = {1, 1, 9, 9, 2, 2}};
  ASSERT_TRUE(WriteNpy(folder_.File("image.npy"), matrix).ok());
  options_.overwrite = true;
  ExpectError(absl::StatusCode::kInvalidArgument,
              "image.npy is 3 x 2, but the catalogue has 4 lines");
}

TEST_F(PrepareTest, TakesReadyFeaturesByIds) {
  WriteEvents("u,c d,1\nu,a,2\n");
  Write("ids.txt",
        "\xef\xbb\xbf"
        "a\r\nb\r\nc d\r\n\r\n");
  const Matrix matrix{.rows = 3, .columns = 1, .values = {1, 2, 3}};
  ASSERT_TRUE(WriteNpy(folder_.File("t.npy"), matrix).ok());
  options_.features = {
      {.name = "text", .path = folder_.File("t.npy"), .ids_path = folder_.File("ids.txt")}};
  ASSERT_TRUE(Run().ok()) << Run().status();
  EXPECT_THAT(ReadNpy(folder_.File("out/features/text.npy"))->values, ElementsAre(3, 1));
  EXPECT_FALSE(FileExists(folder_.File("out/features/text.encoder.safetensors")));

  options_.overwrite = true;
  Write("ids.txt", "a\nb\na\n");
  ExpectError(absl::StatusCode::kInvalidArgument,
              "ids.txt:3: the item id 'a' is already on line 1");
  Write("ids.txt", "a\n\nb\n");
  ExpectError(absl::StatusCode::kInvalidArgument, "ids.txt:2: the line is empty");
  Write("ids.txt", "a\nb\n");
  ExpectError(absl::StatusCode::kInvalidArgument,
              "but " + folder_.File("ids.txt") + " has 2 item ids");
  Write("ids.txt", "x\ny\nz\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "are the ids the same ones?");
}

TEST_F(PrepareTest, RefusesFeaturesWithNan) {
  WriteEvents("u,a,1\nu,b,2\n");
  Write("ids.txt", "a\nb\n");
  const Matrix matrix{.rows = 2, .columns = 1, .values = {1, std::nanf("")}};
  ASSERT_TRUE(WriteNpy(folder_.File("t.npy"), matrix).ok());
  options_.features = {
      {.name = "text", .path = folder_.File("t.npy"), .ids_path = folder_.File("ids.txt")}};
  ExpectError(absl::StatusCode::kInvalidArgument, "t.npy: row 1, column 0 is nan");
}

TEST_F(PrepareTest, RefusesWhatLeavesNothing) {
  Write("events.csv", "");
  ExpectError(absl::StatusCode::kFailedPrecondition, "events.csv has no events");
  WriteEvents("");
  ExpectError(absl::StatusCode::kFailedPrecondition, "events.csv has no events");
  WriteEvents("u,a,1\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "only the item 'a' is left");
  WriteEvents("u,a,1\nu,b,2\n");
  options_.k_core = 5;
  ExpectError(absl::StatusCode::kFailedPrecondition, "--k-core 2");
  options_.k_core = 2;
  ExpectError(absl::StatusCode::kFailedPrecondition, "--k-core 1");
  options_.k_core = 1;
  EXPECT_TRUE(Run().ok());  // one user is fine
}

TEST_F(PrepareTest, RefusesLogsOfWhichMostLinesAreBad) {
  WriteEvents("u,a,1\nb\nc\nu,b,2\nd\n");
  ExpectError(absl::StatusCode::kInvalidArgument, "3 of 5 lines of the logs cannot be used");
  options_.max_bad_lines = 3;
  EXPECT_TRUE(Run().ok());
  options_.max_bad_lines = 2;
  options_.overwrite = true;
  ExpectError(absl::StatusCode::kInvalidArgument, "more than 2 lines");
}

TEST_F(PrepareTest, RefusesACatalogueOfOtherItems) {
  WriteEvents("u,a,1\nu,b,2\n");
  WriteCatalogue("{\"item_id\":\"x\",\"title\":\"T\"}\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "--item-id-field");
  WriteCatalogue("");
  ExpectError(absl::StatusCode::kFailedPrecondition, "none of the 2 items");
  WriteCatalogue("{\"item_id\":\"a\",\"title\":\"one\"}\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "no word occurs in the texts of 2 items");
  options_.drop_without_metadata = true;
  WriteCatalogue("{\"item_id\":\"a\"}\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "leave out --drop-without-metadata");
}

TEST_F(PrepareTest, RefusesBadOptions) {
  WriteEvents("u,a,1\nu,b,2\n");
  const PrepareOptions good = options_;
  options_.events.clear();
  ExpectError(absl::StatusCode::kInvalidArgument, "--events");
  options_ = good;
  options_.k_core = -1;
  ExpectError(absl::StatusCode::kInvalidArgument, "--k-core is -1");
  options_ = good;
  options_.drop_without_metadata = true;
  ExpectError(absl::StatusCode::kInvalidArgument, "--catalogue");
  options_ = good;
  options_.features = {{"te/xt", "a.npy", ""}};
  ExpectError(absl::StatusCode::kInvalidArgument, "te/xt");
  options_.features = {{"text", "a.npy", ""}};
  ExpectError(absl::StatusCode::kInvalidArgument, "--feature-ids");
  options_.features = {{"text", "a.npy", "ids"}, {"text", "b.npy", "ids"}};
  ExpectError(absl::StatusCode::kInvalidArgument, "two --features text");
  options_ = good;
  options_.events = {folder_.File("absent.csv")};
  ExpectError(absl::StatusCode::kNotFound, "absent.csv");
}

TEST_F(PrepareTest, LeavesAnExistingFolderAloneUnlessToldOtherwise) {
  WriteEvents("u,a,1\nu,b,2\n");
  std::filesystem::create_directories(folder_.File("out/features"));
  Write("out/features/audio.npy", "of other items");
  Write("out/notes.txt", "mine");
  ExpectError(absl::StatusCode::kAlreadyExists, "--overwrite");
  options_.overwrite = true;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Out("notes.txt"), "mine");
  EXPECT_FALSE(FileExists(folder_.File("out/features/audio.npy")));
  // A failed run leaves what is there.
  options_.k_core = 5;
  EXPECT_FALSE(Run().ok());
  EXPECT_EQ(Out("interactions.txt"), "u 1 2\n");
  for (const char* below : {"", "/below", "/far/below"}) {
    options_.out = folder_.File(absl::StrCat("events.csv", below));
    ExpectError(absl::StatusCode::kInvalidArgument, "events.csv is a file, not a folder");
  }
}

TEST_F(PrepareTest, AFailedRunTakesItsNewFoldersBack) {
  WriteEvents("u,a,1\nu,b,2\n");
  options_.k_core = 5;
  options_.out = folder_.File("new/out");
  EXPECT_FALSE(Run().ok());
  EXPECT_FALSE(FileExists(folder_.File("new")));
  // One that was there, though empty, stays.
  std::filesystem::create_directories(folder_.File("new/out"));
  EXPECT_FALSE(Run().ok());
  EXPECT_TRUE(FileExists(folder_.File("new/out")));
}

TEST_F(PrepareTest, ARunThatFailsWhileWritingTakesItsFilesBack) {
  WriteEvents("u,a,1\nu,b,2\n");
  Write("ids.txt", "a\nb\n");
  const Matrix matrix{.rows = 2, .columns = 1, .values = {1, 2}};
  ASSERT_TRUE(WriteNpy(folder_.File("t.npy"), matrix).ok());
  // A name too long to be a file's, found out after other features and items.jsonl are written.
  for (const std::string& name : {std::string("text"), std::string(255, 'x')}) {
    options_.features.push_back(
        {.name = name, .path = folder_.File("t.npy"), .ids_path = folder_.File("ids.txt")});
  }
  ExpectError(absl::StatusCode::kInvalidArgument, "xxx.npy");
  EXPECT_FALSE(FileExists(options_.out));
  std::filesystem::create_directories(options_.out);
  Run().IgnoreError();
  EXPECT_TRUE(std::filesystem::is_empty(options_.out));
}

TEST_F(PrepareTest, TakesAnEmptyFolderThatExists) {
  WriteEvents("u,a,1\nu,b,2\n");
  std::filesystem::create_directories(options_.out);
  EXPECT_TRUE(Run().ok());
}

}  // namespace
}  // namespace nestrec

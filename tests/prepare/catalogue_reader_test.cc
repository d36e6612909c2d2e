#include "model/prepare/catalogue_reader.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/item_record.h"
#include "model/prepare/literal_parser.h"
#include "nlohmann/json.hpp"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

class CatalogueReaderTest : public ::testing::Test {
 protected:
  // "row id" for every record.
  std::vector<std::string> Read(const std::string& content, const CatalogueFormat& format = {}) {
    EXPECT_TRUE(WriteFileAtomically(folder_.File("c"), content).ok());
    std::vector<std::string> records;
    const auto rows = ReadCatalogue(
        folder_.File("c"), format, bad_, [](double) {},
        [&](int64_t row, absl::string_view id, const nlohmann::ordered_json& record) {
          records.push_back(absl::StrCat(row, " ", id));
          lines_.push_back(RecordLine(id, record));
          return absl::OkStatus();
        });
    EXPECT_TRUE(rows.ok()) << rows.status();
    rows_ = rows.value_or(-1);
    return records;
  }

  TempFolder folder_;
  BadLines bad_{100, std::nullopt};
  std::vector<std::string> lines_;
  int64_t rows_ = 0;
};

TEST_F(CatalogueReaderTest, ReadsTheAmazonFormsOfAllYears) {
  EXPECT_THAT(Read("{'asin': '0001', 'categories': [['Beauty', 'Hair']], 'title': \"Women's\", "
                   "'price': 9.5}\n"
                   "{\"asin\": \"0002\", \"category\": [\"A\"], \"price\": \"$1.00\"}\n"
                   "{\"parent_asin\": \"0003\", \"asin\": \"child\", \"store\": \"S\"}\n"),
              ElementsAre("0 0001", "1 0002", "2 0003"));
  EXPECT_EQ(
      lines_[0],
      R"({"item_id":"0001","asin":"0001","categories":[["Beauty","Hair"]],"title":"Women's","price":9.5})");
  EXPECT_EQ(RecordField(lines_[0], "categories"), "Beauty, Hair");
}

TEST_F(CatalogueReaderTest, BadLinesCountAsRowsAndEmptyLinesDoNot) {
  EXPECT_THAT(Read("{\"item_id\":\"a\"}\n\nnonsense\n[]\n{\"title\":\"x\"}\n{\"item_id\":1.5}\n{"
                   "\"item_id\":\"\"}\n{\"item_id\":7}\n"),
              ElementsAre("0 a", "6 7"));
  EXPECT_EQ(rows_, 7);
  EXPECT_EQ(bad_.count(), 5);
  EXPECT_THAT(bad_.messages()[0], ::testing::HasSubstr("c:3: column 1"));
}

TEST_F(CatalogueReaderTest, TakesAnotherIdField) {
  EXPECT_THAT(Read("{\"sku\":\"s\",\"item_id\":\"other\",\"id\":4}\n", {.id_field = "sku"}),
              ElementsAre("0 s"));
  // What says something else keeps its value under another name.
  EXPECT_EQ(lines_[0], R"({"item_id":"s","sku":"s","source_item_id":"other","source_id":4})");
}

TEST_F(CatalogueReaderTest, TheIdIsWrittenOnce) {
  Read("{\"id\":17,\"title\":\"T\"}\n");
  EXPECT_EQ(lines_[0], R"({"item_id":"17","title":"T"})");
}

}  // namespace
}  // namespace nestrec

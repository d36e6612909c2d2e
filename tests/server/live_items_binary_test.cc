// The real server with items that come and go: killed while they do, and told by `nestrec items`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/npy.h"
#include "server/client.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int kItems = 100;
constexpr int kFeatures = 12;

class LiveItemsBinary : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RandomModel({.sizes = {8, 16}, .items = kItems, .feature_width = kFeatures})
                    .Write(folder_.File("model"))
                    .ok());
  }
  std::unique_ptr<ChildProcess> Serve() {
    auto child =
        ChildProcess::Start({NESTREC_PROGRAM, "serve", "--model", folder_.File("model"), "--listen",
                             "127.0.0.1:0", "--threads", "1", "--port-file", folder_.File("port"),
                             "--items-folder", folder_.File("items")});
    EXPECT_TRUE(child.ok()) << child.status();
    if (!child.ok()) return nullptr;
    const auto line = (*child)->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    address_ = absl::StrCat("127.0.0.1:",
                            absl::StripSuffix(ReadFile(folder_.File("port")).value_or(""), "\n"));
    client_ = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = address_, .timeout = absl::Seconds(60)});
    return *std::move(child);
  }
  std::set<std::string> Served() {
    v1::RecommendRequest request;
    request.set_k(1000);
    const auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    std::set<std::string> ids;
    if (!response.ok()) return ids;
    for (const v1::RecommendedItem& item : response->items()) ids.insert(item.item_id());
    return ids;
  }
  std::string RunItems(const std::vector<std::string>& more, int exit_code) {
    std::vector<std::string> arguments = {NESTREC_PROGRAM, "items"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.insert(arguments.end(), {"--server", address_});
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    const auto exited = (*child)->WaitForExit();
    EXPECT_TRUE(exited.ok()) << exited.status();
    EXPECT_EQ(*exited, exit_code) << (*child)->output();
    return (*child)->output();
  }

  TempFolder folder_;
  std::string address_;
  std::unique_ptr<RecommendClient> client_;
};

TEST_F(LiveItemsBinary, WhatWasAnsweredSurvivesAKillWhileItemsComeAndGo) {
  std::set<std::string> expected;
  for (int item = 1; item <= kItems; ++item) expected.insert(RandomModelItemId(item));
  int calls = 0;
  for (int round = 0; round < 3; ++round) {
    auto server = Serve();
    std::set<std::string> served = Served();
    // The call that the kill cut off is there or not.
    for (int cut = calls; cut < calls + 2; ++cut) {
      served.erase(absl::StrCat("new-", cut));
    }
    std::set<std::string> certain = expected;
    for (int cut = calls; cut < calls + 2; ++cut) certain.erase(absl::StrCat("new-", cut));
    EXPECT_EQ(served, certain);
    while (true) {
      v1::UpsertItemsRequest request;
      v1::ItemUpsert& item = *request.add_items();
      item.set_item_id(absl::StrCat("new-", calls));
      v1::ItemFeatures& text = *item.add_features();
      text.set_modality("text");
      for (int i = 0; i < kFeatures; ++i) text.add_values(static_cast<float>((calls + i) % 7 + 1));
      if (!client_->UpsertItems(request).ok()) break;
      expected.insert(item.item_id());
      ++calls;
      if (calls % 3 == 0) {
        v1::RemoveItemsRequest remove;
        remove.add_item_ids(absl::StrCat("new-", calls - 2));
        if (!client_->RemoveItems(remove).ok()) break;
        expected.erase(absl::StrCat("new-", calls - 2));
      }
      if (calls % 20 == 19) server->Signal(SIGKILL);
    }
    EXPECT_EQ(*server->WaitForExit(), 128 + SIGKILL);
  }
  EXPECT_GE(calls, 3 * 15);
}

TEST_F(LiveItemsBinary, PeopleUpsertAndRemoveFromFiles) {
  auto server = Serve();
  ASSERT_TRUE(WriteFileAtomically(folder_.File("new.jsonl"),
                                  "{\"item_id\": \"new, with a comma\", \"title\": \"One\"}\n\n"
                                  "{\"asin\": \"B000\", \"title\": \"Two\"}\n")
                  .ok());
  Matrix matrix{.rows = 2, .columns = kFeatures, .values = {}};
  for (int i = 0; i < 2 * kFeatures; ++i) matrix.values.push_back(static_cast<float>(i % 5 - 2));
  ASSERT_TRUE(WriteNpy(folder_.File("new.npy"), matrix).ok());
  const std::string records = folder_.File("new.jsonl");
  const std::string features = absl::StrCat("text=", folder_.File("new.npy"));
  EXPECT_THAT(RunItems({"upsert", "--records", records, "--features", features}, 0),
              HasSubstr("2 items added, 0 changed"));
  EXPECT_TRUE(Served().contains("new, with a comma"));
  EXPECT_THAT(RunItems({"upsert", "--records", records}, 0), HasSubstr("0 items added, 2 changed"));
  EXPECT_THAT(RunItems({"upsert", "--records", records, "--encode-text"}, 1),
              HasSubstr("of the items 1 to 2: encode_text needs the text encoder"));
  EXPECT_THAT(RunItems({"remove", "--ids", "B000,item-4,nobody"}, 0),
              HasSubstr("2 items removed\nno such item: nobody"));
  EXPECT_FALSE(Served().contains("item-4"));
  EXPECT_THAT(RunItems({"remove", "--ids", "item-4", "--restore"}, 0),
              HasSubstr("1 items are as the model has them"));
  EXPECT_TRUE(Served().contains("item-4"));
  RunItems({"remove"}, 2);
  server->Signal(SIGTERM);
  EXPECT_EQ(*server->WaitForExit(), 0);
}

TEST_F(LiveItemsBinary, ADamagedFileIsNamedAndNothingIsServed) {
  {
    auto server = Serve();
    for (const char* id : {"item-4", "item-6"}) {
      v1::RemoveItemsRequest remove;
      remove.add_item_ids(id);
      ASSERT_TRUE(client_->RemoveItems(remove).ok());
    }
    server->Signal(SIGTERM);
    EXPECT_EQ(*server->WaitForExit(), 0);
  }
  const std::string path = folder_.File("items") + "/items.log";
  std::string bytes = *ReadFile(path);
  bytes[40] = static_cast<char>(bytes[40] ^ 1);
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  auto child =
      ChildProcess::Start({NESTREC_PROGRAM, "serve", "--model", folder_.File("model"), "--listen",
                           "127.0.0.1:0", "--items-folder", folder_.File("items")});
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(*(*child)->WaitForExit(), 1);
  EXPECT_THAT((*child)->output(), HasSubstr("items.log is damaged at byte 16"));
}

}  // namespace
}  // namespace nestrec

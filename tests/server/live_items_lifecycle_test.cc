// Items that are upserted and removed over gRPC: restarts, other models, limits, errors.
#include "tests/server/live_items_fixture.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(LiveItemsRpcTest, WhatWasAnsweredIsThereAfterARestart) {
  Upsert("new", Features(1, 2), R"({"title": "New"})");
  Upsert("gone", Features(2, 2));
  Upsert("item-20", Features(3, 2));
  Upsert("item-21", {}, R"({"title": "Other"})");
  Remove({"gone", "item-30"});
  Remove({"item-31"});
  Remove({"item-31"}, /*restore=*/true);
  Start();
  ExpectServed({"new", "item-20"});
  const v1::LiveItemCounts counts = client_->GetModelInfo()->live_items();
  EXPECT_EQ(counts.added(), 1);
  EXPECT_EQ(counts.changed(), 2);
  EXPECT_EQ(counts.removed(), 1);
  v1::RecommendRequest request;
  request.add_only_item_ids("item-21");
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Other");
}

TEST_F(LiveItemsRpcTest, TheFileDoesNotGrowWithWhatIsOutdated) {
  const std::string record = absl::StrCat(R"({"text": ")", std::string(60'000, 'x'), R"("})");
  for (int i = 0; i < 60; ++i) Upsert("item-1", {}, record);
  EXPECT_LT(ReadFile(folder_.File("items") + "/items.log")->size(), 1'400'000u);
  Start();
  EXPECT_EQ(client_->GetModelInfo()->live_items().changed(), 1);
}

TEST_F(LiveItemsRpcTest, ANewModelGetsThemInItsOwnWay) {
  Upsert("new", Features(1, 2));
  Upsert("item-5", Features(2, 2), R"({"title": "Five"})");
  Remove({"item-6"});
  // Other weights.
  const auto next =
      Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures, .seed = 9}, "next");
  ASSERT_TRUE(live_->Attach(next).ok());
  const auto view = next->items();
  ASSERT_TRUE(view->Find("new").has_value());
  const std::vector<ModalityRow> rows = {{"text", Features(1, 2)}};
  const std::vector<float> expected =
      ProjectItem(next->checkpoint().view(), next->checkpoint().info(), rows);
  const float* row = view->RowOf(*view->Find("new"));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), row));
  EXPECT_EQ(view->counts().removed, 1);
  // Features of another width: the new one is left out, the model's own stays as it has it.
  const auto wider =
      Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures + 1}, "wider");
  ASSERT_TRUE(live_->Attach(wider).ok());
  EXPECT_EQ(wider->items()->counts().skipped, 2);
  EXPECT_FALSE(wider->items()->Find("new").has_value());
  EXPECT_EQ(wider->items()->RowOf(5), nullptr);
  EXPECT_EQ(wider->items()->record(5), R"({"title": "Five"})");
  EXPECT_FALSE(wider->items()->IsListed(6));
  // All of them follow.
  Upsert("item-6", {}, "{}");
  EXPECT_TRUE(next->items()->IsListed(6));
  EXPECT_TRUE(wider->items()->IsListed(6));
}

TEST_F(LiveItemsRpcTest, NumbersStayWithTheirItemsWhileAnybodyMayUseThem) {
  Upsert("a", Features(1));
  std::shared_ptr<const ItemView> held = snapshot_->items();
  const int32_t number = *held->Find("a");
  Remove({"a"});
  Upsert("b", Features(2));
  EXPECT_NE(*snapshot_->items()->Find("b"), number);
  EXPECT_EQ(held->id(number), "a");
  held.reset();
  Upsert("c", Features(3));  // by now nobody holds a view with the first
  Upsert("d", Features(4));
  EXPECT_EQ(std::min(*snapshot_->items()->Find("c"), *snapshot_->items()->Find("d")), number);
  EXPECT_EQ(snapshot_->items()->items(), kItems + 3);
}

TEST_F(LiveItemsRpcTest, NamesWhatIsWrongAndChangesNothing) {
  v1::UpsertItemsRequest request;
  EXPECT_THAT(Violations(client_->UpsertItems(request)),
              ElementsAre("items: 0 entries; 1 to 1000 are allowed"));
  Add(request, "good", Features(1));
  Add(request, "", Features(1));
  Add(request, "good", Features(2));
  Add(request, "empty", {});
  Add(request, "json", Features(1), R"({"title": )");
  Add(request, "list", Features(1), "[1, 2]");
  Add(request, "large", Features(1), absl::StrCat("\"", std::string(70'000, 'x'), "\""));
  EXPECT_THAT(
      Violations(client_->UpsertItems(request)),
      ElementsAre("items[1].item_id: is empty",
                  "items[2].item_id: comes twice; send each item once",
                  HasSubstr("items[3]: changes nothing; give a record"),
                  HasSubstr("items[4].record: is not a JSON object: it cannot be read at byte"),
                  HasSubstr("items[5].record: is not a JSON object"),
                  "items[6].record: has 70002 bytes; at most 65536 are allowed"));
  request.clear_items();
  Add(request, "good", Features(1));
  Add(request, "narrow", {1, 2, 3});
  Add(request, "zero", std::vector<float>(kFeatures, 0.0f));
  Add(request, "without", {}, "{}");
  Add(request, "infinite", Features(1));
  request.mutable_items(4)->mutable_features(0)->set_values(2, INFINITY);
  EXPECT_THAT(
      Violations(client_->UpsertItems(request)),
      ElementsAre("items[1]: modality \"text\" has 3 values; this model's has 12",
                  HasSubstr("items[2]: has no feature that is not zero"),
                  HasSubstr("items[3]: is not one of the model's items and has no features"),
                  HasSubstr("items[4]: value 2 of modality \"text\" is inf")));
  EXPECT_FALSE(snapshot_->items()->Find("good").has_value());
  request.clear_items();
  request.add_items()->set_item_id("text");
  request.mutable_items(0)->set_encode_text(true);
  const absl::Status no_encoder = client_->UpsertItems(request).status();
  EXPECT_EQ(no_encoder.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(no_encoder.message(), HasSubstr("encode_text needs the text encoder"));
  v1::RemoveItemsRequest remove;
  EXPECT_THAT(Violations(client_->RemoveItems(remove)),
              ElementsAre("item_ids: 0 entries; 1 to 1000 are allowed"));
}

TEST_F(LiveItemsRpcTest, ATextIsEncodedByTheModelsOwnEncoder) {
  const RandomModel model({.sizes = kDims, .items = kItems, .feature_width = kFeatures});
  std::vector<std::string> texts;
  const std::vector<std::string> fields = {"title", "brand"};
  for (int32_t item = 1; item <= kItems; ++item) {
    texts.push_back(ItemText(model.catalogue().record(item), fields));
  }
  auto fitted =
      TextEncoder::Fit(texts, {.fields = fields, .width = kFeatures, .min_items = 1, .seed = 3});
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  ASSERT_TRUE(fitted->encoder.Save(folder_.File("encoder")).ok());
  const auto file = SafetensorsFile::Open(folder_.File("encoder"), true);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(WriteCheckpoint(folder_.File("with_text"), model.view(), model.info(),
                              model.catalogue(), file->get())
                  .ok());
  auto loaded = Snapshot::Load({.path = folder_.File("with_text")}, Log([](absl::string_view) {}));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_TRUE(live_->Attach(*loaded).ok());
  std::vector<LiveItems::BadItem> bad;
  const auto upsert = [&](const std::string& record, bool encode) {
    return live_
        ->Upsert({{.id = "new", .record = record, .features = {}, .encode_text = encode}}, **loaded,
                 bad)
        .status();
  };
  const auto expect = [&](const std::string& record) {
    const std::vector<ModalityRow> rows = {
        {"text", fitted->encoder.Encode(ItemText(record, fields))}};
    const auto view = (*loaded)->items();
    const std::vector<float> expected =
        ProjectItem((*loaded)->checkpoint().view(), (*loaded)->checkpoint().info(), rows);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view->RowOf(*view->Find("new"))));
  };
  ASSERT_TRUE(upsert(R"({"title": "Title 7", "brand": "Brand 1"})", true).ok());
  expect(R"({"title": "Title 7", "brand": "Brand 1"})");
  // The text follows the record.
  ASSERT_TRUE(upsert(R"({"title": "Title 9"})", false).ok());
  expect(R"({"title": "Title 9"})");
  EXPECT_EQ(upsert(R"({"title": "zzz"})", true).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_THAT(bad[0].why.message(), HasSubstr("has no word in the fields title, brand"));
  expect(R"({"title": "Title 9"})");
  // The other model cannot, and serves without it.
  EXPECT_FALSE(snapshot_->items()->Find("new").has_value());
  EXPECT_EQ(snapshot_->items()->counts().skipped, 1);
}

TEST_F(LiveItemsRpcTest, KeepsNoMoreThanItMay) {
  Start({.max_items = 3});
  for (const char* id : {"a", "b", "item-1"}) Upsert(id, Features(1));
  v1::UpsertItemsRequest request;
  Add(request, "c", Features(1));
  const absl::Status full = client_->UpsertItems(request).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("at most 3 are (--max-live-items)"));
  Upsert("b", Features(2));  // no more than before
  Remove({"a"});
  EXPECT_TRUE(client_->UpsertItems(request).ok());
  Start({.max_bytes = 1 << 16});
  request.mutable_items(0)->set_record(absl::StrCat(R"({"x": ")", std::string(60'000, 'x'), "\"}"));
  EXPECT_TRUE(client_->UpsertItems(request).ok());
  request.mutable_items(0)->set_item_id("item-2");
  EXPECT_THAT(client_->UpsertItems(request).status().message(), HasSubstr("(--max-live-bytes)"));
}

TEST_F(LiveItemsRpcTest, AServerWithoutAFolderTakesNone) {
  auto server = Server::Start({.listen = "127.0.0.1:0"}, snapshot_);
  ASSERT_TRUE(server.ok());
  const RecommendClient client({.server = (*server)->address(), .timeout = absl::Seconds(60)});
  v1::UpsertItemsRequest request;
  Add(request, "a", Features(1));
  const absl::Status status = client.UpsertItems(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("--items-folder"));
}

TEST_F(LiveItemsRpcTest, NobodyEverGetsWhatWasRemovedBeforeTheyAsked) {
  // What is certain of each: counts up at every change; its last two bits are 1 where the item is
  // certainly there, 2 where it is certainly gone.
  std::vector<std::atomic<int>> state(4);
  std::atomic<bool> stop = false;
  std::atomic<int> asked = 0;
  std::vector<std::jthread> readers;
  for (const int dim : {8, 64}) {
    readers.emplace_back([&, dim] {
      v1::RecommendRequest request;
      request.set_k(400);
      request.set_dim(dim);
      for (bool last = false; !last;) {
        last = stop && asked >= 20;
        int before[4];
        for (size_t i = 0; i < 4; ++i) before[i] = state[i];
        std::set<std::string> ids;
        const v1::RecommendResponse response = Recommend(request);
        for (const v1::RecommendedItem& item : response.items()) {
          EXPECT_TRUE(ids.insert(item.item_id()).second) << item.item_id();
        }
        ++asked;
        for (size_t i = 0; i < 4; ++i) {
          if (before[i] % 4 == 0 || before[i] != state[i]) continue;
          EXPECT_EQ(ids.contains(absl::StrCat("live-", i)), before[i] % 4 == 1);
        }
        if (response.items_size() == 0) break;  // the server is gone
      }
    });
  }
  for (int round = 0; round < 40; ++round) {
    const size_t i = static_cast<size_t>(round) % 4;
    const std::string id = absl::StrCat("live-", i);
    const int certain = 4 * (round + 1);
    state[i] = certain;
    if (round % 8 < 4) {
      Upsert(id, Features(static_cast<uint64_t>(round), 2));
      state[i] = certain + 1;
    } else {
      Remove({id});
      state[i] = certain + 2;
    }
  }
  stop = true;
}

}  // namespace
}  // namespace nestrec

// Items that are upserted and removed over gRPC: what calls see of them.
#include "tests/server/live_items_fixture.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

TEST_F(LiveItemsRpcTest, NewItemsComeBackAtEveryWidthAndInEveryTier) {
  for (uint64_t i = 0; i < 40; ++i) Upsert(absl::StrCat("new-", i), Features(i, 3));
  ExpectServed({});
  ExpectServed({RandomModelItemId(7), RandomModelItemId(12)}, 25);
  const auto info = client_->GetModelInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->item_count(), kItems + 40);
  EXPECT_EQ(info->live_items().added(), 40);
  EXPECT_GT(info->live_items().bytes(), 40 * 64 * 4);
  // An approximate index does not keep the best one back.
  v1::RecommendRequest request;
  request.set_tier("graph");
  request.set_k(1);
  const std::vector<float> scale = Features(99, 1000);
  Upsert("huge", scale);
  if (Scores({}, 24).at("huge") < 0) {
    std::vector<float> opposite = scale;
    for (float& value : opposite) value = -value;
    Upsert("huge", opposite);
  }
  EXPECT_EQ(Recommend(request).items(0).item_id(), "huge");
}

TEST_F(LiveItemsRpcTest, AnItemOfTheModelGetsNewFeaturesAndKeepsItsVectorWithoutThem) {
  const std::string id = RandomModelItemId(7);
  Upsert(id, {}, R"({"title": "Renamed", "price": 1234.5})");
  ExpectServed({id}, 20);
  v1::RecommendRequest request;
  request.add_only_item_ids(id);
  request.add_fields("title");
  request.add_fields("brand");
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Renamed");
  EXPECT_FALSE(Recommend(request).items(0).fields().contains("brand"));
  Upsert(id, Features(5, 2));
  ExpectServed({id}, 20);
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Renamed");
  EXPECT_EQ(client_->GetModelInfo()->live_items().changed(), 1);
  Remove({id}, /*restore=*/true);
  ExpectServed({id}, 20);
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Title 7");
}

TEST_F(LiveItemsRpcTest, RemovedItemsDoNotComeBackButCountInHistories) {
  Upsert("new", Features(1, 3));
  const std::string trained = RandomModelItemId(11);
  const std::vector<std::string> history = {trained, RandomModelItemId(3)};
  const v1::RemoveItemsResponse response = Remove({trained, "new", "nobody", "nobody"});
  EXPECT_EQ(response.removed(), 2u);
  EXPECT_THAT(response.unknown_item_ids(), ElementsAre("nobody"));
  EXPECT_EQ(response.live_items().removed(), 1);
  EXPECT_EQ(response.live_items().added(), 0);
  ExpectServed(history);
  v1::SimilarItemsRequest similar;
  similar.set_item_id(trained);
  EXPECT_EQ(client_->SimilarItems(similar).status().code(), absl::StatusCode::kNotFound);
  v1::RecommendRequest request;
  request.add_history_item_ids("new");
  request.add_history_item_ids(trained);
  EXPECT_THAT(Recommend(request).unknown_item_ids(), ElementsAre("new"));
  EXPECT_EQ(Remove({trained}).removed(), 0u);  // once is enough
  // Upserted again, it is back as the model has it.
  Upsert(trained, {}, R"({"title": "Back"})");
  ExpectServed(history);
}

TEST_F(LiveItemsRpcTest, HistoriesMayNameNewItems) {
  Upsert("new-a", Features(1, 2));
  Upsert("new-b", Features(2, 2));
  ExpectServed({"new-a"}, 30);
  ExpectServed({RandomModelItemId(5), "new-b", "new-a", "new-b"}, 30);
  v1::RecommendRequest request;
  request.add_history_item_ids("new-a");
  request.add_history_item_ids(RandomModelItemId(9));
  request.set_explain(true);
  request.set_dim(24);
  request.set_k(5);
  const v1::RecommendResponse explained = Recommend(request);
  EXPECT_THAT(explained.explained_item_ids(), ElementsAre("new-a", RandomModelItemId(9)));
  const auto whole = Scores({"new-a", RandomModelItemId(9)}, 24);
  const auto without = Scores({RandomModelItemId(9)}, 24);
  for (const v1::RecommendedItem& item : explained.items()) {
    EXPECT_NEAR(item.contributions(0), whole.at(item.item_id()) - without.at(item.item_id()), 1e-3);
  }
}

TEST_F(LiveItemsRpcTest, SessionsFollowWhatHappensToTheirItems) {
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  for (const char* id : {"item-4", "later", "item-9"}) events.add_item_ids(id);
  ASSERT_TRUE(client_->RecordEvents(events).ok());
  const auto expect = [&](const std::vector<std::string>& history) {
    for (const int dim : {64, 8, 24}) {
      v1::RecommendRequest request;
      request.set_user_id("u");
      request.set_dim(dim);
      request.set_include_seen(true);
      request.set_k(50);
      ExpectBest(Recommend(request), Scores(history, dim), 50);
      ExpectBest(Recommend(request), Scores(history, dim), 50);  // from what is remembered
    }
  };
  expect({"item-4", "item-9"});
  Upsert("later", Features(1, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("unrelated", Features(2, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("later", Features(3, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("item-9", Features(4, 2));
  expect({"item-4", "later", "item-9"});
  Remove({"item-9"}, /*restore=*/true);
  expect({"item-4", "later", "item-9"});
  Remove({"later"});
  expect({"item-4", "item-9"});
}

TEST_F(LiveItemsRpcTest, FiltersCapsAndLikenessSeeThem) {
  Upsert("red-1", Features(1), R"({"title": "Red", "brand": "Brand 3", "colour": "red"})");
  Upsert("red-2", Features(2), R"({"brand": "New brand", "colour": "red", "price": "12.5"})");
  Upsert(RandomModelItemId(8), {}, R"({"brand": "New brand", "price": 3})");
  v1::RecommendRequest request;
  request.set_k(400);
  const auto found = [&] {
    std::vector<std::string> ids;
    const v1::RecommendResponse response = Recommend(request);
    for (const v1::RecommendedItem& item : response.items()) ids.push_back(item.item_id());
    return ids;
  };
  v1::FieldValues& values = *request.mutable_filter()->mutable_any_of();
  values.set_field("colour");
  values.add_values()->set_text("red");
  EXPECT_THAT(found(), UnorderedElementsAre("red-1", "red-2"));
  values.set_field("brand");
  values.mutable_values(0)->set_text("New brand");
  EXPECT_THAT(found(), UnorderedElementsAre("red-2", RandomModelItemId(8)));
  values.mutable_values(0)->set_text("Brand 3");
  EXPECT_EQ(found().size(), 60u);  // 60 of the model without item 8, which changed, and red-1
  v1::FieldRange& range = *request.mutable_filter()->mutable_range();
  range.set_field("price");
  range.set_min(12.5);
  range.set_max(12.5);
  EXPECT_THAT(found(), UnorderedElementsAre("red-2", RandomModelItemId(12)));
  request.clear_filter();
  v1::GroupCap& cap = *request.add_caps();
  cap.set_field("brand");
  cap.set_most(1);
  EXPECT_EQ(found().size(), 6u);  // of five brands and the new one
  request.clear_caps();
  request.mutable_diversity()->set_relevance(0.5);
  request.set_k(20);
  EXPECT_EQ(found().size(), 20u);

  v1::SimilarItemsRequest similar;
  similar.set_item_id("red-1");
  similar.set_k(400);
  similar.set_dim(24);
  const auto alike = client_->SimilarItems(similar);
  ASSERT_TRUE(alike.ok()) << alike.status();
  EXPECT_EQ(alike->items_size(), kItems + 1);
  std::map<std::string, float> cosines;
  const std::vector<float> vector = VectorOf("red-1");
  const NestedSizes& sizes = snapshot_->sizes();
  for (const std::string& id : Ids()) {
    if (id == "red-1") continue;
    const std::vector<float> other = VectorOf(id);
    double product = 0;
    for (size_t c = 0; c < 24; ++c) product += static_cast<double>(vector[c]) * other[c];
    cosines[id] = CosineFromSums(product, SquareOf(vector, sizes, 2), SquareOf(other, sizes, 2));
  }
  for (const v1::RecommendedItem& item : alike->items()) {
    EXPECT_NEAR(item.score(), cosines.at(item.item_id()), 1e-5);
  }
}

}  // namespace
}  // namespace nestrec

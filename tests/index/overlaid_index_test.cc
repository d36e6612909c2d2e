#include "index/overlaid_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "index/cosine_index.h"
#include "index/diversity.h"
#include "index/exhaustive_search.h"
#include "index/faiss_index.h"
#include "index/nested_builder.h"
#include "index/predicate.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

constexpr int64_t kBase = 400;
const std::vector<int> kSizes = {4, 8, 24};

// Base vectors, and changes to them of every kind: item 401.. are new, some base items have other
// vectors, some are gone.
class OverlaidIndexTest : public testing::Test {
 protected:
  // `gone` base items are hidden; `changed` ones get another vector.
  void Make(int new_items, int changed, int gone) {
    for (int i = 0; i < new_items; ++i) {
      if (i % 7 == 3) continue;  // a number without an item
      vectors_[static_cast<int32_t>(kBase) + 1 + i] = GaussianVector(24, random_);
    }
    for (int i = 0; i < changed; ++i) {
      vectors_[static_cast<int32_t>(1 + random_.Index(kBase))] = GaussianVector(24, random_);
    }
    for (const auto& [item, vector] : vectors_) {
      if (item <= kBase) hidden_.insert(item);
    }
    while (static_cast<int>(gone_.size()) < gone) {
      const auto item = static_cast<int32_t>(1 + random_.Index(kBase));
      if (!vectors_.contains(item)) gone_.insert(item);
    }
    hidden_.insert(gone_.begin(), gone_.end());
    std::vector<ItemOverlay::Row> rows;
    for (const auto& [item, vector] : vectors_) rows.push_back({item, vector.data()});
    overlay_ = std::make_unique<ItemOverlay>(kBase, kBase + new_items, std::move(rows),
                                             std::vector<int32_t>(hidden_.begin(), hidden_.end()));
  }

  std::vector<float> VectorOf(int32_t item) const {
    const auto changed = vectors_.find(item);
    if (changed != vectors_.end()) return changed->second;
    std::vector<float> vector;
    for (int level = 0; level < 3; ++level) {
      const auto part = base_.view().row(level, item);
      vector.insert(vector.end(), part.begin(), part.end());
    }
    return vector;
  }
  // Every item that there is.
  std::vector<int32_t> Items() const {
    std::vector<int32_t> items;
    for (int32_t item = 1; item <= overlay_->items(); ++item) {
      if (vectors_.contains(item) || (item <= kBase && !gone_.contains(item))) {
        items.push_back(item);
      }
    }
    return items;
  }
  std::vector<ScoredItem> BruteForce(std::span<const float> query, int levels, int64_t k,
                                     const ItemFilter* filter, Similarity similarity,
                                     std::optional<float> min_score = {}) const {
    std::vector<ScoredItem> all;
    for (const int32_t item : Items()) {
      if (filter != nullptr && !filter->Allows(item)) continue;
      const std::vector<float> vector = VectorOf(item);
      float score = CanonicalScore(query, vector, sizes_, levels);
      if (similarity == Similarity::kCosine) {
        double product = 0;
        for (int level = 0; level < levels; ++level) {
          const auto begin = static_cast<size_t>(sizes_.begin(level));
          const auto width = static_cast<size_t>(sizes_.width(level));
          product += Dot(query.subspan(begin, width), std::span(vector).subspan(begin, width));
        }
        score = CosineFromSums(product, SquareOf(query, sizes_, levels),
                               SquareOf(vector, sizes_, levels));
      }
      if (!min_score.has_value() || score >= *min_score) all.push_back({item, score});
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(std::min(all.size(), static_cast<size_t>(k)));
    return all;
  }
  std::unique_ptr<const ItemIndex> Build(const std::string& factory, int levels) const {
    if (factory == "cosine") {
      return std::make_unique<CosineIndex>(base_.view(), levels, *ItemNorms::Create(base_.view()));
    }
    if (factory == kNestedFactory) return *BuildNestedIndex(base_.view(), levels, {}, nullptr);
    return *BuildFaissIndex(base_.view(), levels, {.factory = factory}, nullptr);
  }

  Random random_{7};
  TestVectors base_ = TestVectors::Gaussian(kBase, kSizes, random_);
  NestedSizes sizes_ = base_.sizes;
  std::map<int32_t, std::vector<float>> vectors_;
  std::set<int32_t> hidden_, gone_;
  std::unique_ptr<ItemOverlay> overlay_;
};

TEST_F(OverlaidIndexTest, EqualsBruteForceWithEveryExactIndexAndFilter) {
  Make(60, 30, 20);
  for (const std::string factory : {"Flat", "nested", "cosine"}) {
    const Similarity similarity = factory == "cosine" ? Similarity::kCosine : Similarity::kProduct;
    for (int levels = 1; levels <= 3; ++levels) {
      const auto base = Build(factory, levels);
      const OverlaidIndex index(base.get(), overlay_.get(), sizes_, levels, similarity);
      EXPECT_EQ(index.items(), kBase + 60);
      std::vector<int32_t> some;
      for (int32_t item = 1; item <= index.items(); item += 3) some.push_back(item);
      const ItemFilter few = ItemFilter::Allowing(index.items(), std::vector<int32_t>{3, 410, 450});
      const ItemFilter third = ItemFilter::Allowing(index.items(), some);
      for (const ItemFilter* filter : {static_cast<const ItemFilter*>(nullptr), &few, &third}) {
        const auto query = GaussianVector(static_cast<size_t>(index.dim()), random_);
        for (const int64_t k : {1, 10, 5000}) {
          const auto found = index.Search(query, {.k = k, .filter = filter});
          ASSERT_TRUE(found.ok()) << found.status();
          EXPECT_EQ(found->items, BruteForce(query, levels, k, filter, similarity))
              << factory << " " << levels << " " << k;
          EXPECT_TRUE(found->exact);
        }
        const float least = BruteForce(query, levels, 3, nullptr, similarity).back().score;
        const auto above = index.Search(query, {.k = 50, .filter = filter, .min_score = least});
        ASSERT_TRUE(above.ok());
        EXPECT_EQ(above->items, BruteForce(query, levels, 50, filter, similarity, least));
      }
    }
  }
}

TEST_F(OverlaidIndexTest, SearchesManyTogetherAsIfEachWereAlone) {
  Make(60, 30, 20);
  for (const std::string factory : {"Flat", "nested", "cosine", "HNSW8"}) {
    const Similarity similarity = factory == "cosine" ? Similarity::kCosine : Similarity::kProduct;
    const auto base = Build(factory, 3);
    const OverlaidIndex index(base.get(), overlay_.get(), sizes_, 3, similarity);
    const ItemFilter few = ItemFilter::Allowing(index.items(), std::vector<int32_t>{3, 410, 450});
    const ItemFilter most = ItemFilter::Excluding(index.items(), std::vector<int32_t>{3, 410});
    std::vector<std::vector<float>> vectors;
    for (int i = 0; i < 20; ++i) vectors.push_back(GaussianVector(24, random_));
    std::vector<IndexQuery> queries;
    for (size_t i = 0; i < vectors.size(); ++i) {
      queries.push_back({vectors[i],
                         {.k = static_cast<int64_t>(1 + 3 * i),
                          .filter = i % 3 == 0 ? &few : (i % 3 == 1 ? &most : nullptr)}});
      if (i % 4 == 0) queries.back().options.min_score = 0.1f;
    }
    const auto together = index.SearchBatch(queries);
    ASSERT_TRUE(together.ok()) << together.status();
    ASSERT_EQ(together->size(), queries.size());
    for (size_t i = 0; i < queries.size(); ++i) {
      const auto alone = index.Search(queries[i].query, queries[i].options);
      ASSERT_TRUE(alone.ok());
      EXPECT_EQ((*together)[i].items, alone->items) << factory << " " << i;
      EXPECT_EQ((*together)[i].exact, alone->exact);
    }
    queries[7].options.k = 0;
    EXPECT_EQ(index.SearchBatch(queries).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(OverlaidIndexTest, ManyHiddenItemsAreLeftOutToo) {
  Make(10, 0, 300);
  const auto base = Build("Flat", 2);
  const OverlaidIndex index(base.get(), overlay_.get(), sizes_, 2, Similarity::kProduct);
  for (int i = 0; i < 20; ++i) {
    const auto query = GaussianVector(8, random_);
    const auto found = index.Search(query, {.k = 20});
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(found->items, BruteForce(query, 2, 20, nullptr, Similarity::kProduct));
  }
}

TEST_F(OverlaidIndexTest, AnApproximateIndexNeverReturnsWhatIsGoneAndFindsWhatIsNew) {
  Make(30, 20, 40);
  const auto base = Build("HNSW8", 3);
  const OverlaidIndex index(base.get(), overlay_.get(), sizes_, 3, Similarity::kProduct);
  EXPECT_FALSE(index.exact());
  for (const auto& [item, vector] : vectors_) {
    std::vector<float> query = vector;
    for (float& value : query) value *= 100;
    const auto found = index.Search(query, {.k = 40});
    ASSERT_TRUE(found.ok());
    for (const ScoredItem& best : found->items) {
      EXPECT_FALSE(gone_.contains(best.item));
      EXPECT_EQ(best.score, CanonicalScore(query, VectorOf(best.item), sizes_, 3));
    }
    EXPECT_EQ(std::count_if(found->items.begin(), found->items.end(),
                            [&](const ScoredItem& best) { return best.item == item; }),
              1);
  }
}

TEST_F(OverlaidIndexTest, RefusesAFilterOverOtherItems) {
  Make(5, 0, 0);
  const auto base = Build("Flat", 1);
  const OverlaidIndex index(base.get(), overlay_.get(), sizes_, 1, Similarity::kProduct);
  const ItemFilter filter = ItemFilter::Excluding(kBase, {});
  EXPECT_EQ(index.Search(std::vector<float>(4), {.k = 1, .filter = &filter}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Attributes of 30 base items and of changed ones, random, and a table made anew of all of them.
class AttributeViewTest : public testing::Test {
 protected:
  static constexpr int32_t kTable = 30;
  static constexpr int32_t kAll = 40;

  template <typename Add>
  void Fill(Add&& add) {
    if (random_.Index(4) > 0)
      add("brand", AttributeValue(std::string(1, "abcz"[random_.Index(4)])));
    if (random_.Index(4) > 0) add("price", AttributeValue(static_cast<double>(random_.Index(6))));
    if (random_.Index(3) == 0) add("new", AttributeValue(random_.Index(2) == 0));
  }
  static void AddTo(AttributeTable::Builder& builder, int32_t item, const std::string& field,
                    const AttributeValue& value) {
    if (const auto* text = std::get_if<std::string>(&value)) builder.AddText(item, field, *text);
    if (const auto* number = std::get_if<double>(&value)) builder.AddNumber(item, field, *number);
    if (const auto* flag = std::get_if<bool>(&value)) builder.AddFlag(item, field, *flag);
  }

  void SetUp() override {
    AttributeTable::Builder base(kTable);
    AttributeTable::Builder whole(kAll);
    changed_.resize(kAll + 1);
    std::vector<AttributeOverlay::Changed> changed;
    for (int32_t item = 1; item <= kAll; ++item) {
      const bool is_changed = item > kTable || item % 4 == 0;
      if (item <= kTable) {
        Fill([&](const std::string& field, const AttributeValue& value) {
          AddTo(base, item, field, value);
          if (!is_changed) AddTo(whole, item, field, value);
        });
      }
      if (!is_changed) continue;
      if (item == 36 || item == 8) {
        changed.push_back({.item = item, .attributes = nullptr});
        gone_.push_back(item);
        continue;
      }
      ItemAttributes& attributes = changed_[static_cast<size_t>(item)];
      Fill([&](const std::string& field, const AttributeValue& value) {
        if (const auto* text = std::get_if<std::string>(&value)) attributes.AddText(field, *text);
        if (const auto* number = std::get_if<double>(&value)) attributes.AddNumber(field, *number);
        if (const auto* flag = std::get_if<bool>(&value)) attributes.AddFlag(field, *flag);
        AddTo(whole, item, field, value);
      });
      attributes.AddText("colour", "red");  // of changed items alone
      whole.AddText(item, "colour", "red");
      changed.push_back({.item = item, .attributes = &attributes});
    }
    table_ = std::move(base).Build();
    whole_ = std::move(whole).Build();
    overlay_ = AttributeOverlay(kAll, std::move(changed));
  }

  Random random_{11};
  std::vector<ItemAttributes> changed_;
  std::vector<int32_t> gone_;
  AttributeTable table_, whole_;
  AttributeOverlay overlay_;
};

TEST_F(AttributeViewTest, PredicatesMatchAsInATableMadeAnew) {
  const AttributeView view(table_, &overlay_);
  EXPECT_EQ(view.FieldNames(), whole_.FieldNames());
  const std::vector<Predicate> leaves = {
      Predicate::AnyOf("brand", {std::string("a"), std::string("z")}),
      Predicate::AllOf("brand", {std::string("b")}),
      Predicate::InRange("price", {.min = 1, .max = 4, .exclude_max = true}),
      Predicate::InRange("price", {.min = 2, .exclude_min = true}),
      Predicate::AnyOf("price", {3.0, true}),
      Predicate::AnyOf("new", {false}),
      Predicate::Exists("new"),
      Predicate::Exists("colour"),
      Predicate::AnyOf("colour", {std::string("red")})};
  std::vector<Predicate> all = leaves;
  for (const Predicate& a : leaves) {
    all.push_back(Predicate::None({a}));
    for (const Predicate& b : leaves) {
      all.push_back(Predicate::Every({a, Predicate::None({b})}));
      all.push_back(Predicate::Some({a, b}));
    }
  }
  const ItemSet gone = ItemSet::Of(gone_);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto found = Matching(all[i], view);
    const auto expected = Matching(all[i], whole_);
    ASSERT_TRUE(found.ok() && expected.ok()) << found.status() << expected.status();
    EXPECT_EQ(found->Items(), expected->Without(gone).Items()) << i;
  }
}

TEST_F(AttributeViewTest, NamesFieldsThatNobodyHas) {
  const AttributeView view(table_, &overlay_);
  EXPECT_THAT(Matching(Predicate::Exists("size"), view).status().message(),
              testing::HasSubstr("brand, colour, new, price"));
  EXPECT_FALSE(Matching(Predicate::Exists("colour"), table_).ok());
  EXPECT_THAT(Matching(Predicate::InRange("colour", {.min = 1}), view).status().message(),
              testing::HasSubstr("no item has a number in the field"));
}

TEST_F(AttributeViewTest, CapsCountAsInATableMadeAnew) {
  TestVectors vectors = TestVectors::Gaussian(kAll, {4}, random_);
  const auto flat = BuildFaissIndex(vectors.view(), 1, {.factory = "Flat"}, nullptr);
  ASSERT_TRUE(flat.ok());
  const ItemFilter filter = ItemFilter::Excluding(kAll, gone_);
  const AttributeView view(table_, &overlay_);
  for (int i = 0; i < 20; ++i) {
    const auto query = GaussianVector(4, random_);
    for (const std::vector<GroupCap>& caps : std::vector<std::vector<GroupCap>>{
             {{.field = "brand", .most = 2}},
             {{.field = "price", .most = 1}, {.field = "colour", .most = 3}}}) {
      const SearchOptions options{.k = 15, .filter = &filter};
      const auto found = SearchWithCaps(**flat, query, options, view, caps);
      const auto expected = SearchWithCaps(**flat, query, options, whole_, caps);
      ASSERT_TRUE(found.ok() && expected.ok());
      EXPECT_EQ(found->items, expected->items);
    }
  }
}

}  // namespace
}  // namespace nestrec

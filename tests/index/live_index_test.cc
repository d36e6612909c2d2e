#include "index/live_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "base/random.h"
#include "index/faiss_index.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"

namespace nestrec {

void PrintTo(const ScoredItem& item, std::ostream* out) { *out << item.item << ":" << item.score; }

namespace {

using ::testing::HasSubstr;

LiveIndex::Build Faiss(const std::string& factory) {
  return [factory](const LevelVectors& vectors, int levels, std::shared_ptr<const void> owner) {
    return BuildFaissIndex(vectors, levels, {.factory = factory}, std::move(owner));
  };
}

// What a live index over sizes 8 and 16 should hold.
class Oracle {
 public:
  explicit Oracle(const TestVectors& vectors) : sizes_(vectors.sizes) {
    for (int64_t item = 1; item < vectors.rows; ++item) {
      std::vector<float>& vector = items_[static_cast<int32_t>(item)];
      for (int level = 0; level < sizes_.levels(); ++level) {
        const auto row = vectors.view().row(level, item);
        vector.insert(vector.end(), row.begin(), row.end());
      }
    }
  }

  std::map<int32_t, std::vector<float>>& items() { return items_; }
  std::vector<ScoredItem> Search(std::span<const float> query, int levels,
                                 const SearchOptions& options) const {
    std::vector<ScoredItem> all;
    for (const auto& [item, vector] : items_) {
      double sum = 0;
      for (int level = 0; level < levels; ++level) {
        const auto begin = static_cast<size_t>(sizes_.begin(level));
        const auto width = static_cast<size_t>(sizes_.width(level));
        sum += Dot(query.subspan(begin, width), std::span(vector).subspan(begin, width));
      }
      const float score = ScoreFromSum(sum);
      const bool allowed = options.filter == nullptr ||
                           (item <= options.filter->items() && options.filter->Allows(item));
      if (allowed && score >= options.min_score.value_or(-1e30f)) all.push_back({item, score});
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(std::min(all.size(), static_cast<size_t>(options.k)));
    return all;
  }

 private:
  NestedSizes sizes_;
  std::map<int32_t, std::vector<float>> items_;
};

class LiveIndexTest : public ::testing::Test {
 protected:
  void SetUp() override { omp_set_num_threads(1); }

  std::unique_ptr<LiveIndex> Create(const TestVectors& vectors, int64_t max_changes,
                                    bool background = false) {
    auto live = LiveIndex::Create(vectors.view(), nullptr,
                                  {.widths = {{1, Faiss("Flat")}, {2, Faiss("Flat")}},
                                   .max_changes = max_changes,
                                   .background = background});
    EXPECT_TRUE(live.ok()) << live.status();
    return *std::move(live);
  }

  void ExpectEquals(const LiveIndex& live, const Oracle& oracle, Random& random) {
    for (const int levels : {1, 2}) {
      const std::vector<float> query = GaussianVector(levels == 1 ? 8 : 16, random);
      std::vector<int32_t> allowed;
      const double share = random.Index(2) == 0 ? 0.5 : 0.005;
      const int64_t over = 1 + random.Index(live.highest());
      for (int32_t item = 1; item <= over; ++item) {
        if (random.Uniform() < share) allowed.push_back(item);
      }
      const ItemFilter filter = ItemFilter::Allowing(over, allowed);
      SearchOptions options{.k = int64_t{1} << random.Index(9)};
      if (random.Index(2) == 0) options.filter = &filter;
      if (random.Index(4) == 0) options.min_score = 1.0f;
      const auto result = live.Search(static_cast<size_t>(levels - 1), query, options);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_TRUE(result->exact);
      ASSERT_EQ(result->items, oracle.Search(query, levels, options));
    }
  }
};

TEST_F(LiveIndexTest, EqualsBruteForceThroughChangesAndCompactions) {
  for (const bool background : {false, true}) {
    Random random(background ? 1 : 2);
    const TestVectors vectors = TestVectors::Gaussian(400, {8, 16}, random);
    const auto live = Create(vectors, 60, background);
    Oracle oracle(vectors);
    for (int round = 0; round < 1500; ++round) {
      const std::vector<float> vector = GaussianVector(16, random);
      const auto item = static_cast<int32_t>(1 + random.Index(live->highest()));
      switch (random.Index(5)) {
        case 0: {
          const auto inserted = live->Insert(vector);
          ASSERT_TRUE(inserted.ok()) << inserted.status();
          EXPECT_EQ(*inserted, live->highest());
          oracle.items()[*inserted] = vector;
          break;
        }
        case 1:
          ASSERT_TRUE(live->Upsert(item, vector).ok());
          oracle.items()[item] = vector;
          break;
        case 2:
        case 3:
          ASSERT_EQ(live->Remove(item).ok(), oracle.items().erase(item) == 1);
          break;
        case 4: {  // the same item twice among others: the last one counts
          const std::vector<float> other = GaussianVector(16, random);
          const int32_t next = live->highest() + 1;
          const std::vector<LiveIndex::ItemChange> changes = {
              {.item = item, .vector = other},
              {.item = next, .vector = other},
              {.item = item, .vector = vector},
              {.item = next, .vector = std::nullopt}};
          ASSERT_TRUE(live->Apply(changes).ok());
          oracle.items()[item] = vector;
          oracle.items().erase(next);
          break;
        }
      }
      EXPECT_EQ(live->size(), static_cast<int64_t>(oracle.items().size()));
      if (round % 5 == 0) ExpectEquals(*live, oracle, random);
      if (HasFatalFailure()) return;
    }
    ASSERT_TRUE(live->Compact().ok());
    ExpectEquals(*live, oracle, random);
    EXPECT_GE(live->compactions(), 2);
    EXPECT_TRUE(live->last_compaction().ok());
  }
}

TEST_F(LiveIndexTest, CanBeEmptiedAndFilledAgain) {
  Random random(3);
  const TestVectors vectors = TestVectors::Gaussian(50, {8, 16}, random);
  const auto live = Create(vectors, 1000);
  Oracle oracle(vectors);
  for (int32_t item = 1; item <= 50; ++item) {
    ASSERT_TRUE(live->Remove(item).ok());
    oracle.items().erase(item);
  }
  for (int round = 0; round < 2; ++round) {  // before and after the compaction
    EXPECT_EQ(live->size(), 0);
    const auto result = live->Search(1, GaussianVector(16, random), {.k = 10});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(result->items.empty());
    ASSERT_TRUE(live->Compact().ok());
  }
  const std::vector<float> vector = GaussianVector(16, random);
  EXPECT_EQ(*live->Insert(vector), 51);  // numbers are not used again by themselves
  ASSERT_TRUE(live->Upsert(7, vector).ok());
  oracle.items()[51] = vector;
  oracle.items()[7] = vector;
  ExpectEquals(*live, oracle, random);
  ASSERT_TRUE(live->Compact().ok());
  ExpectEquals(*live, oracle, random);
  ASSERT_TRUE(live->Remove(7).ok());
  EXPECT_EQ(live->Search(1, vector, {.k = 10})->items.size(), 1u);
}

TEST_F(LiveIndexTest, AKindThatIsApproximateServesItsChangesAsWell) {
  Random random(4);
  const TestVectors vectors = TestVectors::Gaussian(3000, {8, 16}, random);
  auto live = LiveIndex::Create(vectors.view(), nullptr, {.widths = {{2, Faiss("HNSW16")}}});
  ASSERT_TRUE(live.ok()) << live.status();
  const std::vector<float> query = GaussianVector(16, random);
  std::vector<float> best = query;
  for (float& value : best) value *= 100;
  const int32_t added = *(*live)->Insert(best);
  EXPECT_EQ((*live)->Search(0, query, {.k = 5})->items.front().item, added);
  for (int round = 0; round < 300; ++round) {  // the best of the base, one after the other
    const int32_t first = (*live)->Search(0, query, {.k = 2})->items[1].item;
    ASSERT_TRUE((*live)->Remove(first).ok());
    const auto result = (*live)->Search(0, query, {.k = 20});
    ASSERT_EQ(result->items.size(), 20u);
    for (const ScoredItem& item : result->items) EXPECT_NE(item.item, first);
  }
}

TEST_F(LiveIndexTest, ASearchSeesEveryFinishedChangeAndNoneInPart) {
  constexpr int32_t kItems = 600;
  constexpr int kVersions = 400;
  Random random(5);
  const TestVectors vectors = TestVectors::Gaussian(kItems, {8, 16}, random);
  const auto live = Create(vectors, 100, /*background=*/true);
  // Items 1 and 2 change together, to vectors that score their version; every version removes one
  // item of those above 100.
  const auto version_vector = [](int version) {
    std::vector<float> vector(16, 0.0f);
    vector[0] = 1000.0f + static_cast<float>(version);
    return vector;
  };
  ASSERT_TRUE(live->Upsert(1, version_vector(0)).ok());
  ASSERT_TRUE(live->Upsert(2, version_vector(0)).ok());
  std::atomic<int> finished{0};  // versions whose calls have returned
  std::atomic<bool> stop{false};
  std::atomic<int> searches{0};
  std::vector<std::jthread> readers;
  for (int reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&] {
      omp_set_num_threads(1);
      std::vector<float> query(16, 0.0f);
      query[0] = 1;
      // What the writer waits for comes whatever becomes of the searches.
      const absl::Cleanup let_go = [&] {
        searches.fetch_add(kVersions);
        searches.notify_all();
      };
      while (!stop.load()) {
        const int before = finished.load();
        const auto result = live->Search(1, query, {.k = kItems});
        ASSERT_TRUE(result.ok()) << result.status();
        ASSERT_GE(result->items.size(), 2u);
        EXPECT_EQ(result->items[0].item, 1);
        EXPECT_EQ(result->items[1].item, 2);
        EXPECT_EQ(result->items[0].score, result->items[1].score);
        EXPECT_GE(result->items[0].score, 1000.0f + static_cast<float>(before));
        for (const ScoredItem& item : result->items) {
          EXPECT_FALSE(item.item > 100 && item.item <= 100 + before) << "removed " << item.item;
        }
        if (HasFailure()) return;
        searches.fetch_add(1);
        searches.notify_all();
      }
    });
  }
  for (int version = 1; version <= kVersions; ++version) {
    const std::vector<float> vector = version_vector(version);
    const std::vector<LiveIndex::ItemChange> changes = {
        {.item = 1, .vector = vector},
        {.item = 2, .vector = vector},
        {.item = 100 + version, .vector = std::nullopt}};
    ASSERT_TRUE(live->Apply(changes).ok());
    finished.store(version);
    for (int seen = searches.load(); seen < version; seen = searches.load()) searches.wait(seen);
  }
  stop.store(true);
  readers.clear();
  EXPECT_EQ(live->size(), kItems - kVersions);
}

TEST_F(LiveIndexTest, ManyWritersGetNumbersOfTheirOwn) {
  Random random(6);
  const TestVectors vectors = TestVectors::Gaussian(10, {8, 16}, random);
  const auto live = Create(vectors, 50, /*background=*/true);
  std::vector<std::vector<int32_t>> numbers(4);
  {
    std::vector<std::jthread> writers;
    for (std::vector<int32_t>& own : numbers) {
      writers.emplace_back([&live, &own] {
        omp_set_num_threads(1);
        const std::vector<float> vector(16, 1.0f);
        for (int i = 0; i < 200; ++i) own.push_back(*live->Insert(vector));
      });
    }
  }
  std::vector<int32_t> all;
  for (const std::vector<int32_t>& own : numbers) all.insert(all.end(), own.begin(), own.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  EXPECT_EQ(all.size(), 800u);
  EXPECT_EQ(live->highest(), 810);
  EXPECT_EQ(live->size(), 810);
}

TEST_F(LiveIndexTest, AMillionUpsertsDoNotGrowMemory) {
  Random random(7);
  const TestVectors vectors = TestVectors::Gaussian(2000, {8, 16}, random);
  const auto live = Create(vectors, 8192);
  std::vector<float> vector(16, 1.0f);
  const auto upsert = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      vector[0] = static_cast<float>(i);
      ASSERT_TRUE(live->Upsert(1 + i % 2000, vector).ok());
    }
  };
  const auto heap_bytes = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<int64_t>(info.uordblks + info.hblkhd);
  };
  upsert(0, 50'000);
  const int64_t heap = heap_bytes();
  const int64_t bytes = live->bytes();
  upsert(50'000, 1'000'000);
  // Two bases, and rows of 16 floats and 24 bytes, up to twice max_changes, in either state.
  constexpr int64_t kMost = 4'000'000;
  EXPECT_LT(live->bytes(), bytes + kMost);
  EXPECT_LT(heap_bytes(), heap + kMost);
  EXPECT_GE(live->compactions(), 50);
  EXPECT_EQ(live->size(), 2000);
  std::vector<float> query(16, 0.0f);
  query[0] = 1;
  EXPECT_EQ(live->Search(1, query, {.k = 1})->items[0].score, 999'999.0f);
}

TEST_F(LiveIndexTest, ServesOnWhenACompactionFails) {
  Random random(8);
  const TestVectors vectors = TestVectors::Gaussian(300, {8, 16}, random);
  bool fails = false;
  auto created = LiveIndex::Create(
      vectors.view(), nullptr,
      {.widths = {{2,
                   [&fails](const LevelVectors& v, int levels, std::shared_ptr<const void> owner)
                       -> absl::StatusOr<std::unique_ptr<const ItemIndex>> {
                     if (fails) return absl::ResourceExhaustedError("no memory today");
                     return BuildFaissIndex(v, levels, {}, std::move(owner));
                   }}},
       .max_changes = 20});
  ASSERT_TRUE(created.ok()) << created.status();
  LiveIndex& live = **created;
  fails = true;
  Oracle oracle(vectors);
  absl::Status status;
  int made = 0;
  for (; made < 1000 && status.ok(); ++made) {
    const std::vector<float> vector = GaussianVector(16, random);
    status = live.Upsert(5, vector);
    if (status.ok()) oracle.items()[5] = vector;
  }
  EXPECT_EQ(made, 41);  // twice max_changes fit
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("no memory today"));
  EXPECT_THAT(live.last_compaction().message(), HasSubstr("no memory today"));
  const std::vector<float> query = GaussianVector(16, random);
  EXPECT_EQ(live.Search(0, query, {.k = 300})->items, oracle.Search(query, 2, {.k = 300}));
  fails = false;
  EXPECT_TRUE(live.Upsert(5, query).ok());
  EXPECT_TRUE(live.last_compaction().ok());
}

TEST_F(LiveIndexTest, RefusesBadChangesWhole) {
  Random random(9);
  const TestVectors vectors = TestVectors::Gaussian(20, {8, 16}, random);
  const auto live = Create(vectors, 100);
  const std::vector<float> good(16, 1.0f);
  std::vector<float> bad = good;
  bad[3] = std::numeric_limits<float>::infinity();
  const auto message = [](const absl::Status& status) { return std::string(status.message()); };
  EXPECT_THAT(message(live->Upsert(5, std::span(good).first(8))), HasSubstr("8 values; D is 16"));
  EXPECT_THAT(message(live->Upsert(5, bad)), HasSubstr("item 5 has inf in column 3"));
  EXPECT_THAT(message(live->Upsert(0, good)), HasSubstr("item 0 is not in 1 to 20"));
  EXPECT_THAT(message(live->Upsert(22, good)), HasSubstr("the next new item is 21"));
  EXPECT_EQ(live->Remove(21).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(live->Remove(-1).code(), absl::StatusCode::kNotFound);
  const std::vector<LiveIndex::ItemChange> twice = {{.item = 3, .vector = std::nullopt},
                                                    {.item = 4, .vector = good},
                                                    {.item = 3, .vector = std::nullopt}};
  EXPECT_EQ(live->Apply(twice).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(live->size(), 20);  // nothing of it was done
  EXPECT_THAT(message(live->Apply(std::vector<LiveIndex::ItemChange>(101))),
              HasSubstr("101 changes at once; at most 100"));
  const ItemFilter wide = ItemFilter::Excluding(21, {});
  EXPECT_THAT(message(live->Search(1, good, {.filter = &wide}).status()),
              HasSubstr("over 21 items; the highest is 20"));
  EXPECT_THAT(message(live->Search(2, good, {}).status()), HasSubstr("width is 2"));
  EXPECT_THAT(message(live->Search(0, good, {}).status()), HasSubstr("16 values"));
  EXPECT_THAT(message(live->Search(1, good, {.k = 0}).status()), HasSubstr("k is 0"));
  EXPECT_THAT(message(LiveIndex::Create(vectors.view(), nullptr, {}).status()),
              HasSubstr("at least one width"));
}

}  // namespace
}  // namespace nestrec

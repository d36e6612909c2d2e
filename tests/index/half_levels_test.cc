// Item vectors in float16: made, kept in files, and searched by what is not the nested index
// (nested_index_test.cc has that).
#include "index/half_levels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/random.h"
#include "index/cosine_index.h"
#include "index/exhaustive_search.h"
#include "index/faiss_index.h"
#include "index/live_index.h"
#include "index/nested_builder.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"
#include "tests/testing/full_disk.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kItems = 1500;

class HalfLevelsTest : public ::testing::Test {
 protected:
  HalfLevelsTest() {
    omp_set_num_threads(1);
    rounded_.Round();
  }

  absl::StatusOr<HalfLevels> Open(const std::string& source = "v1") const {
    return LoadOrRoundLevels(vectors_.view(), folder_, source);
  }
  std::string FileOf(int level) const {
    return absl::StrCat(folder_, "/level", level, "-float16.index");
  }
  // Bit for bit what rounding by the definition gives.
  void ExpectRounded(const LevelVectors& vectors, int levels = 3) const {
    ASSERT_TRUE(vectors.Validate().ok()) << vectors.Validate();
    ASSERT_TRUE(vectors.half());
    for (int level = 0; level < levels; ++level) {
      const auto at = static_cast<size_t>(level);
      EXPECT_TRUE(std::ranges::equal(vectors.halves[at], rounded_.halves[at])) << level;
    }
  }
  // Brute force over floats that are halves.
  std::vector<ScoredItem> Best(std::span<const float> query, int levels, size_t k) const {
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      all.push_back({item, CanonicalScore(query, rounded_.view(), levels, item)});
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(k);
    return all;
  }

  Random random_{1};
  TestVectors vectors_ = TestVectors::Gaussian(kItems, {32, 64, 200}, random_);
  TestVectors rounded_ = vectors_;
  const TempFolder temp_;
  const std::string folder_ = temp_.path();
};

TEST_F(HalfLevelsTest, AreTheNearestHalvesInHalfTheBytes) {
  const auto halves = RoundLevels(vectors_.view());
  ASSERT_TRUE(halves.ok()) << halves.status();
  ExpectRounded(halves->vectors);
  EXPECT_EQ(halves->vectors.halves[2].size_bytes(), vectors_.view().levels[2].size_bytes() / 2);
  std::vector<float> whole(200);
  halves->vectors.CopyRows(3, 17, whole);
  for (int c = 0; c < 200; ++c) {
    const int level = c < 32 ? 0 : c < 64 ? 1 : 2;
    EXPECT_EQ(whole[static_cast<size_t>(c)],
              rounded_.view().row(level, 17)[static_cast<size_t>(c - rounded_.sizes.begin(level))]);
  }
}

TEST_F(HalfLevelsTest, WhatHasNoHalfIsRefusedByItemAndColumn) {
  const auto message = [&](int level, int64_t item, float value) {
    TestVectors bad = vectors_;
    bad.row(level, item)[3] = value;
    const auto halves = RoundLevels(bad.view());
    EXPECT_EQ(halves.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(halves.status().message());
  };
  EXPECT_THAT(message(1, 7, 65504.1f), HasSubstr("item 7 has 65504.1 in column 35"));
  EXPECT_THAT(message(1, 7, -1e5f), HasSubstr("float16 ends at 65504: store these vectors as"));
  EXPECT_THAT(message(0, kItems, std::nanf("")), HasSubstr("item 1500 has nan in column 3"));
  EXPECT_THAT(message(2, 1, std::numeric_limits<float>::infinity()), HasSubstr("has inf"));
  TestVectors padding = vectors_;
  padding.row(1, 0)[3] = 1e30f;  // no item
  EXPECT_TRUE(RoundLevels(padding.view()).ok());
  EXPECT_THAT(std::string(RoundLevels(rounded_.stored()).status().message()),
              HasSubstr("float16 already"));
}

TEST_F(HalfLevelsTest, ViewsOfHalvesAreCheckedAsThoseOfFloatsAre) {
  LevelVectors view = rounded_.stored();
  view.halves[1] = view.halves[1].subspan(1);
  EXPECT_THAT(std::string(view.Validate().message()), HasSubstr("halves; 1501 rows of 32 need"));
  view = rounded_.stored();
  view.levels = rounded_.view().levels;
  EXPECT_THAT(std::string(view.Validate().message()), HasSubstr("in float32 and in float16"));
  view = rounded_.stored();
  view.halves.pop_back();
  EXPECT_THAT(std::string(view.Validate().message()), HasSubstr("2 levels for 3 sizes"));
}

TEST_F(HalfLevelsTest, AreReadBackFromTheirFiles) {
  const auto made = Open();
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(absl::IsNotFound(made->load)) << made->load;
  EXPECT_TRUE(made->save.ok()) << made->save;
  ExpectRounded(made->vectors);
  const auto read = Open();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->load.ok()) << read->load;
  ExpectRounded(read->vectors);
  for (const auto& level : read->vectors.halves) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(level.data()) % 64, 0u);
  }
  // A narrow replica needs the first levels' files alone, and they are the same ones.
  std::filesystem::remove(FileOf(2));
  const auto narrow = LoadOrRoundLevels(vectors_.view().Prefix(2), folder_, "v1");
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_TRUE(narrow->load.ok()) << narrow->load;
  ExpectRounded(narrow->vectors, 2);
}

TEST_F(HalfLevelsTest, AreMadeAgainWhereFilesAreOfOtherVectorsOrDamaged) {
  ASSERT_TRUE(Open().ok());
  const auto other = Open("v2");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->load.code(), absl::StatusCode::kFailedPrecondition) << other->load;
  EXPECT_TRUE(Open("v2")->load.ok());
  const std::string good = *ReadFile(FileOf(1));
  for (int round = 0; round < 20; ++round) {
    std::string bad = good;
    const auto at = static_cast<size_t>(random_.Index(static_cast<int64_t>(good.size())));
    if (round % 2 == 0) {
      bad[at] = static_cast<char>(bad[at] ^ (1 << random_.Index(8)));
    } else {
      bad.resize(at);
    }
    ASSERT_TRUE(WriteFileAtomically(FileOf(1), bad).ok());
    const auto again = Open("v2");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_FALSE(again->load.ok());
    EXPECT_TRUE(again->save.ok());
    ExpectRounded(again->vectors);
    EXPECT_EQ(*ReadFile(FileOf(1)), good);
  }
}

TEST_F(HalfLevelsTest, VectorsThatBelieTheirSourceAreFoundOut) {
  ASSERT_TRUE(Open().ok());
  Random random(4);
  vectors_ = TestVectors::Gaussian(kItems, {32, 64, 200}, random);
  rounded_ = vectors_;
  rounded_.Round();
  const auto again = Open();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->load.code(), absl::StatusCode::kDataLoss) << again->load;
  ExpectRounded(again->vectors);
}

TEST_F(HalfLevelsTest, StayInMemoryWhereTheDiskIsFull) {
  const auto kept = [&] {
    const FullDisk full(20'000);
    return Open();
  }();
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_FALSE(kept->save.ok());
  ExpectRounded(kept->vectors);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(HalfLevelsTest, FaissIndexesAnswerAsBruteForceOverTheHalves) {
  for (const std::string factory : {"Flat", "HNSW16", "IVF8,Flat"}) {
    for (int levels = 1; levels <= 3; ++levels) {
      const auto index = BuildFaissIndex(rounded_.stored(), levels,
                                         {.factory = factory, .extra_candidates = kItems}, nullptr);
      ASSERT_TRUE(index.ok()) << index.status();
      for (int round = 0; round < 5; ++round) {
        const auto query = GaussianVector(static_cast<size_t>((*index)->dim()), random_);
        const auto result = (*index)->Search(query, {.k = 20});
        ASSERT_TRUE(result.ok()) << result.status();
        if ((*index)->exact()) {
          EXPECT_EQ(result->items, Best(query, levels, 20)) << factory;
        }
        for (const ScoredItem& item : result->items) {
          EXPECT_EQ(item.score, CanonicalScore(query, rounded_.view(), levels, item.item));
        }
      }
    }
  }
}

TEST_F(HalfLevelsTest, TheBruteForceOfTheProductReadsHalvesToo) {
  const auto query = GaussianVector(200, random_);
  EXPECT_EQ(ExhaustiveSearch(query, rounded_.stored(), 3, {.k = 30}).items, Best(query, 3, 30));
}

TEST_F(HalfLevelsTest, CosinesAreThoseOfTheHalves) {
  const auto norms = ItemNorms::Create(rounded_.stored());
  const auto expected_norms = ItemNorms::Create(rounded_.view());
  ASSERT_TRUE(norms.ok() && expected_norms.ok());
  const ItemFilter few = ItemFilter::Allowing(kItems, std::vector<int32_t>{3, 700, 1500});
  for (int levels = 1; levels <= 3; ++levels) {
    const CosineIndex index(rounded_.stored(), levels, *norms);
    const CosineIndex expected(rounded_.view(), levels, *expected_norms);
    const auto query = GaussianVector(static_cast<size_t>(index.dim()), random_);
    for (const SearchOptions& options :
         {SearchOptions{.k = 20}, SearchOptions{.k = 2, .filter = &few}}) {
      const auto result = index.Search(query, options);
      ASSERT_TRUE(result.ok());
      EXPECT_EQ(result->items, expected.Search(query, options)->items);
    }
  }
}

TEST_F(HalfLevelsTest, KeptIndexesOfFloatsAndOfHalvesAreNotTakenForEachOther) {
  const std::string path = folder_ + "/x.index";
  const auto nested = [&](const LevelVectors& vectors) {
    return LoadOrBuildNestedIndex(vectors, 3, {}, nullptr, path, "v1");
  };
  const auto faiss = [&](const LevelVectors& vectors) {
    return LoadOrBuildFaissIndex(vectors, 3, {.factory = "IVF8,Flat"}, nullptr, path, "v1");
  };
  for (const auto& open : {std::function<absl::StatusOr<KeptIndex>(const LevelVectors&)>(nested),
                           std::function<absl::StatusOr<KeptIndex>(const LevelVectors&)>(faiss)}) {
    ASSERT_TRUE(open(vectors_.view()).ok());
    EXPECT_TRUE(open(vectors_.view())->load.ok());
    EXPECT_EQ(open(rounded_.stored())->load.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(open(rounded_.stored())->load.ok());
    EXPECT_EQ(open(vectors_.view())->load.code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST_F(HalfLevelsTest, LiveItemsAreRoundedAsTheOthersAreAndStaySoWhenFolded) {
  const auto build = [](const LevelVectors& vectors, int levels,
                        std::shared_ptr<const void> owner) {
    EXPECT_TRUE(vectors.half());
    return BuildNestedIndex(vectors, levels, {}, std::move(owner));
  };
  LiveIndex::Options options;
  options.widths.push_back({.levels = 3, .build = build});
  const TestVectors base = rounded_;
  const auto live = LiveIndex::Create(base.stored(), nullptr, std::move(options));
  ASSERT_TRUE(live.ok()) << live.status();
  for (const int32_t item : {5, 900}) {
    const auto vector = GaussianVector(200, random_);
    ASSERT_TRUE((*live)->Upsert(item, vector).ok());
    for (int level = 0; level < 3; ++level) {
      const auto part = std::span(vector).subspan(static_cast<size_t>(vectors_.sizes.begin(level)),
                                                  rounded_.row(level, item).size());
      std::copy(part.begin(), part.end(), rounded_.row(level, item).begin());
    }
  }
  rounded_.Round();
  std::vector<float> huge(200, 1.0f);
  huge[9] = 7e4f;
  const absl::Status refused = (*live)->Upsert(6, huge);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("the vector of item 6 has 70000 in column 9; these vectors are float16"));
  const auto query = GaussianVector(200, random_);
  EXPECT_EQ((*live)->Search(0, query, {.k = kItems})->items, Best(query, 3, kItems));
  ASSERT_TRUE((*live)->Compact().ok());
  EXPECT_EQ((*live)->Search(0, query, {.k = kItems})->items, Best(query, 3, kItems));
}

}  // namespace
}  // namespace nestrec

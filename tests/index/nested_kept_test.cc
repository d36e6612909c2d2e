// The nested index's codes, kept in files between runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/mapping_guard.h"
#include "base/random.h"
#include "index/index_file.h"
#include "index/nested_builder.h"
#include "index/nested_index.h"
#include "index/nested_store.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"
#include "tests/testing/full_disk.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kItems = 2000;

class NestedKept : public ::testing::Test {
 protected:
  NestedKept() { omp_set_num_threads(1); }

  std::string path() const { return folder_ + "/x.index"; }
  absl::StatusOr<KeptIndex> Open(int levels = 3, const std::string& source = "v1",
                                 const std::string& parameters = "") const {
    return LoadOrBuildNestedIndex(vectors_.view(), levels, {.parameters = parameters}, nullptr,
                                  path(), source);
  }
  std::vector<std::vector<ScoredItem>> Answers(const ItemIndex& index) const {
    std::vector<std::vector<ScoredItem>> answers;
    Random random(2);
    for (int query = 0; query < 20; ++query) {
      const std::vector<float> z = GaussianVector(static_cast<size_t>(index.dim()), random);
      const auto result = index.Search(z, {.k = 10});
      EXPECT_TRUE(result.ok()) << result.status();
      answers.push_back(result.ok() ? result->items : std::vector<ScoredItem>());
    }
    return answers;
  }
  void ExpectRanksAll(const ItemIndex& index, int levels) const {
    Random random(3);
    const std::vector<float> z = GaussianVector(static_cast<size_t>(index.dim()), random);
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      all.push_back({item, CanonicalScore(z, vectors_.view(), levels, item)});
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(50);
    const auto result = index.Search(z, {.k = 50});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(result->exact);
    EXPECT_EQ(result->items, all);
  }

  Random random_{1};
  TestVectors vectors_ = TestVectors::Gaussian(kItems, {32, 64, 300}, random_);
  const TempFolder temp_;
  const std::string folder_ = temp_.path();
};

TEST_F(NestedKept, ReadsBackWhatItMadeAndAnswersTheSame) {
  for (int levels = 1; levels <= 3; ++levels) {
    const auto built = Open(levels);
    ASSERT_TRUE(built.ok()) << built.status();
    EXPECT_FALSE(built->load.ok());
    EXPECT_TRUE(built->save.ok()) << built->save;
    const auto loaded = Open(levels);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(loaded->load.ok()) << loaded->load;
    EXPECT_EQ(Answers(*loaded->index), Answers(*built->index));
    EXPECT_EQ(loaded->index->bytes(), built->index->bytes());
    EXPECT_TRUE(loaded->index->exact());
    ExpectRanksAll(*loaded->index, levels);
  }
}

TEST_F(NestedKept, EverythingThatASearchReadsIsInTheFile) {
  const auto made = NestedCodes::Create(vectors_.view(), {});
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_TRUE(nested_store::Write(**made, path(), "k").ok());
  const auto read = nested_store::Read(path(), "k", vectors_.view());
  ASSERT_TRUE(read.ok()) << read.status();
  const NestedCodes::Parts& a = (*made)->parts();
  const NestedCodes::Parts& b = (*read)->parts();
  EXPECT_EQ(a.transform.mean, b.transform.mean);
  EXPECT_EQ(a.transform.decode, b.transform.decode);
  EXPECT_EQ(a.transform.error, b.transform.error);
  EXPECT_EQ(a.largest_norm, b.largest_norm);
  EXPECT_TRUE(std::ranges::equal(a.scales, b.scales));
  EXPECT_TRUE(std::ranges::equal(a.bounds, b.bounds));
  ASSERT_EQ(a.groups.size(), b.groups.size());
  ASSERT_EQ(a.groups.size(), 3u);
  EXPECT_TRUE(a.groups[0].has_high);
  for (size_t g = 0; g < a.groups.size(); ++g) {
    EXPECT_TRUE(std::ranges::equal(a.groups[g].high, b.groups[g].high));
    EXPECT_TRUE(std::ranges::equal(a.groups[g].low, b.groups[g].low));
    EXPECT_EQ(a.groups[g].steps, b.groups[g].steps);
    EXPECT_EQ(a.groups[g].end, b.groups[g].end);
    EXPECT_EQ(a.groups[g].row_bytes, b.groups[g].row_bytes);
    EXPECT_EQ(a.groups[g].norm_unit, b.groups[g].norm_unit);
    EXPECT_EQ(a.groups[g].error4_unit, b.groups[g].error4_unit);
    EXPECT_EQ(a.groups[g].error8_unit, b.groups[g].error8_unit);
    EXPECT_EQ(a.groups[g].value4_norm, b.groups[g].value4_norm);
    EXPECT_EQ(a.groups[g].mean_error8, b.groups[g].mean_error8);
    for (const auto& rows : {b.groups[g].high, b.groups[g].low}) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(rows.data()) % 64, 0u);
    }
  }
}

TEST_F(NestedKept, CodesWhoseFileIsCutAreNotIntact) {
  GuardMappings();
  const auto made = NestedCodes::Create(vectors_.view(), {});
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_TRUE(nested_store::Write(**made, path(), "k").ok());
  const auto read = nested_store::Read(path(), "k", vectors_.view());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE((*made)->intact());
  EXPECT_TRUE((*read)->intact());
  std::filesystem::resize_file(path(), 4096);
  int64_t sum = 0;
  for (const auto& group : (*read)->parts().groups) {
    for (const uint8_t code : group.high) sum += code;
  }
  EXPECT_GE(sum, 0);
  EXPECT_FALSE((*read)->intact());
  EXPECT_TRUE((*made)->intact());
}

TEST_F(NestedKept, SettingsAreNotPartOfTheFile) {
  ASSERT_TRUE(Open().ok());
  const auto approximate = Open(3, "v1", "recall=0.9");
  ASSERT_TRUE(approximate.ok()) << approximate.status();
  EXPECT_TRUE(approximate->load.ok());
  EXPECT_FALSE(approximate->index->exact());
  EXPECT_THAT(Open(3, "v1", "nprobe=3").status().message(), HasSubstr("nprobe=3"));
}

TEST_F(NestedKept, MakesAgainWhatIsOfSomethingElse) {
  const auto expect_stale = [&](const absl::StatusOr<KeptIndex>& kept, const char* what) {
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(kept->load.code(), absl::StatusCode::kFailedPrecondition) << what;
    EXPECT_TRUE(kept->save.ok());
  };
  ASSERT_TRUE(Open().ok());
  expect_stale(Open(3, "v2"), "other vectors");
  expect_stale(Open(2, "v2"), "other width");
  vectors_.rows -= 1;
  for (int level = 0; level < 3; ++level) {
    vectors_.levels[static_cast<size_t>(level)].resize(
        static_cast<size_t>(vectors_.rows * vectors_.sizes.width(level)));
  }
  expect_stale(Open(2, "v2"), "other count");
  EXPECT_TRUE(Open(2, "v2")->load.ok());
}

TEST_F(NestedKept, VectorsThatBelieTheirSourceAreFoundOut) {
  ASSERT_TRUE(Open().ok());
  Random random(4);
  vectors_ = TestVectors::Gaussian(kItems, {32, 64, 300}, random);
  const auto again = Open();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->load.code(), absl::StatusCode::kDataLoss) << again->load;
  ExpectRanksAll(*again->index, 3);
}

TEST_F(NestedKept, MakesAgainWhatIsDamagedAnywhere) {
  const auto first = Open(2);
  ASSERT_TRUE(first.ok());
  const auto expected = Answers(*first->index);
  const std::string good = *ReadFile(path());
  for (int round = 0; round < 20; ++round) {
    std::string bad = good;
    const auto at = static_cast<size_t>(random_.Index(static_cast<int64_t>(good.size())));
    if (round % 2 == 0) {
      bad[at] = static_cast<char>(bad[at] ^ (1 << random_.Index(8)));
    } else {
      bad.resize(at);
    }
    ASSERT_TRUE(WriteFileAtomically(path(), bad).ok());
    const auto again = Open(2);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_FALSE(again->load.ok());
    EXPECT_TRUE(again->save.ok());
    EXPECT_EQ(Answers(*again->index), expected);
    EXPECT_EQ(*ReadFile(path()), good);
  }
}

// Checksums tell of accidents; a file that was made to be wrong has good ones.
TEST_F(NestedKept, NoPayloadTakesASearchOutsideOfIt) {
  const auto made = NestedCodes::Create(vectors_.view(), {});
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(nested_store::Write(**made, path(), "k").ok());
  const auto file = OpenIndexFile(path(), "k");
  ASSERT_TRUE(file.ok());
  const std::string good(reinterpret_cast<const char*>(file->payload.data()), file->payload.size());
  const auto read = [&](const std::string& payload) {
    const auto writer = IndexFileWriter::Create(path(), "k");
    EXPECT_TRUE(writer.ok());
    EXPECT_TRUE((*writer)->Write(payload.data(), payload.size()).ok());
    EXPECT_TRUE((*writer)->Commit().ok());
    return nested_store::Read(path(), "k", vectors_.view());
  };
  int refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::string bad = good;
    if (round % 3 == 0) {
      bad.resize(static_cast<size_t>(random_.Index(static_cast<int64_t>(good.size()))));
    } else {
      const int64_t within = round % 3 == 1 ? 40 + 3 * 56 : static_cast<int64_t>(good.size());
      bad[static_cast<size_t>(random_.Index(within))] = static_cast<char>(random_.Index(256));
    }
    auto codes = read(bad);
    if (!codes.ok()) {
      EXPECT_EQ(codes.status().code(), absl::StatusCode::kDataLoss) << codes.status();
      ++refused;
      continue;
    }
    std::vector<std::unique_ptr<const NestedCodes>> widths;
    widths.push_back(*std::move(codes));
    const auto index = NestedIndex::CreateOf(std::move(widths), {.measure = false}, nullptr);
    ASSERT_TRUE(index.ok()) << index.status();
    const std::vector<float> z = GaussianVector(300, random_);
    const auto result = (*index)->Search(z, 3, {.k = 10});
    EXPECT_TRUE(result.ok()) << result.status();
  }
  EXPECT_GT(refused, 100);
  EXPECT_FALSE(read(good + '\0').ok());
  EXPECT_TRUE(read(good).ok());
}

TEST_F(NestedKept, ServesFromMemoryWhereTheFileCannotBeWritten) {
  std::filesystem::remove_all(folder_);
  const auto kept = Open();
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->save.code(), absl::StatusCode::kNotFound);
  ExpectRanksAll(*kept->index, 3);
}

TEST_F(NestedKept, ServesFromMemoryWhereTheDiskIsFull) {
  const auto kept = [&] {
    const FullDisk full(20'000);
    return Open();
  }();
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_FALSE(kept->save.ok());
  ExpectRanksAll(*kept->index, 3);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(NestedKept, KeepsNothingWhereThereIsNothingToKeep) {
  EXPECT_TRUE(HasNestedCodes(vectors_.view(), 1));
  EXPECT_FALSE(HasNestedCodes(vectors_.view(), 0));
  EXPECT_FALSE(HasNestedCodes(vectors_.view(), 4));
  Random random(5);
  EXPECT_FALSE(HasNestedCodes(TestVectors::Gaussian(kItems, {16}, random).view(), 1));
  EXPECT_FALSE(HasNestedCodes(TestVectors::Gaussian(100, {64}, random).view(), 1));
}

}  // namespace
}  // namespace nestrec

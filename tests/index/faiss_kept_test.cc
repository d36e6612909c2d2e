// FAISS indexes that are kept in files between runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/mapping_guard.h"
#include "base/random.h"
#include "index/faiss_index.h"
#include "tests/index/test_vectors.h"
#include "tests/testing/resident_bytes.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class FaissKept : public ::testing::Test {
 protected:
  FaissKept() : folder_(absl::StrCat(::testing::TempDir(), "/faiss_kept_test_", getpid())) {
    std::filesystem::create_directories(folder_);
    omp_set_num_threads(1);
  }
  ~FaissKept() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/x.index"; }
  absl::StatusOr<KeptIndex> Open(const FaissIndexOptions& options, int levels = 2,
                                 const std::string& source = "v1") const {
    return LoadOrBuildFaissIndex(vectors_.view(), levels, options, nullptr, path(), source);
  }
  std::vector<std::vector<ScoredItem>> Answers(const ItemIndex& index) const {
    std::vector<std::vector<ScoredItem>> answers;
    Random random(2);
    for (int query = 0; query < 20; ++query) {
      const std::vector<float> z = GaussianVector(static_cast<size_t>(index.dim()), random);
      std::vector<int32_t> excluded;
      for (int i = 0; i < 300; ++i)
        excluded.push_back(static_cast<int32_t>(1 + random.Index(2000)));
      const ItemFilter filter = ItemFilter::Excluding(2000, excluded);
      answers.push_back(index.Search(z, {.k = 10, .filter = query % 2 ? &filter : nullptr})->items);
    }
    return answers;
  }

  Random random_{1};
  TestVectors vectors_ = TestVectors::Gaussian(2000, {16, 32}, random_);
  std::string folder_;
};

TEST_F(FaissKept, ReadsBackEveryKindAndAnswersTheSame) {
  for (const FaissIndexOptions& options :
       std::vector<FaissIndexOptions>{{.factory = "Flat"},
                                      {.factory = "HNSW16", .parameters = "efSearch=64"},
                                      {.factory = "IVF16,Flat", .parameters = "nprobe=4"},
                                      {.factory = "SQ8"},
                                      {.factory = "PQ16x4np"},
                                      {.factory = "IVF16,PQ16x4np", .parameters = "nprobe=4"},
                                      {.factory = "PCA16,IVF16,SQ8", .parameters = "nprobe=4"}}) {
    const auto built = Open(options);
    ASSERT_TRUE(built.ok()) << built.status();
    EXPECT_FALSE(built->load.ok());
    EXPECT_TRUE(built->save.ok()) << built->save;
    const auto loaded = Open(options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(loaded->load.ok()) << options.factory << ": " << loaded->load;
    EXPECT_EQ(Answers(*loaded->index), Answers(*built->index)) << options.factory;
    EXPECT_EQ(loaded->index->exact(), built->index->exact());
    EXPECT_EQ(loaded->index->bytes(), built->index->bytes());
  }
}

// A mapping that is read stays; what FAISS has copied does not.
TEST_F(FaissKept, InvertedListsStayInTheFile) {
  const auto resident = [&](const FaissIndexOptions& options) {
    EXPECT_TRUE(Open(options).ok());
    const auto loaded = Open(options);
    EXPECT_TRUE(loaded->load.ok()) << loaded->load;
    Answers(*loaded->index);
    return ResidentBytes("/x.index");
  };
  EXPECT_GE(resident({.factory = "IVF16,Flat", .parameters = "nprobe=16"}), 2000 * 32 * 4);
  EXPECT_GE(resident({.factory = "PCA16,IVF16,SQ8", .parameters = "nprobe=16"}), 2000 * 16);
  EXPECT_EQ(resident({.factory = "HNSW16"}), 0);
  EXPECT_EQ(ResidentBytes("/x.index"), 0);  // and go with their index
}

TEST_F(FaissKept, AnIndexWhoseListsAreCutIsNotIntact) {
  GuardMappings();
  for (const char* factory : {"IVF16,Flat", "PCA16,IVF16,SQ8", "HNSW16"}) {
    const FaissIndexOptions options = {.factory = factory};
    std::filesystem::remove(path());
    const auto built = Open(options);
    ASSERT_TRUE(built.ok()) << built.status();
    const auto loaded = Open(options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(loaded->index->intact());
    std::filesystem::resize_file(path(), 100);
    Answers(*loaded->index);
    EXPECT_EQ(loaded->index->intact(), std::string(factory) == "HNSW16") << factory;
    EXPECT_TRUE(built->index->intact());
  }
}

TEST_F(FaissKept, SearchSettingsAreNotPartOfTheFile) {
  ASSERT_TRUE(Open({.factory = "IVF16,Flat", .parameters = "nprobe=1"}).ok());
  const auto wide = Open({.factory = "IVF16,Flat", .parameters = "nprobe=16"});
  ASSERT_TRUE(wide.ok());
  EXPECT_TRUE(wide->load.ok());
  const auto exact = BuildFaissIndex(vectors_.view(), 2, {}, nullptr);
  EXPECT_EQ(Answers(*wide->index), Answers(**exact));
  const auto bad = Open({.factory = "IVF16,Flat", .parameters = "nprobes=3"});
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(bad.status().message(), HasSubstr("nprobes=3"));
}

TEST_F(FaissKept, BuildsAgainWhatIsOfSomethingElse) {
  const FaissIndexOptions options{.factory = "SQ8"};
  const auto expect_stale = [&](const absl::StatusOr<KeptIndex>& kept, const char* what) {
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(kept->load.code(), absl::StatusCode::kFailedPrecondition) << what;
    EXPECT_TRUE(kept->save.ok());
  };
  ASSERT_TRUE(Open(options).ok());
  expect_stale(Open(options, 2, "v2"), "other vectors");
  expect_stale(Open(options, 1, "v2"), "other width");
  expect_stale(Open({.factory = "SQ4"}, 1, "v2"), "other factory");
  vectors_.rows -= 1;
  for (int level = 0; level < 2; ++level) {
    vectors_.levels[static_cast<size_t>(level)].resize(
        static_cast<size_t>(vectors_.rows * vectors_.sizes.width(level)));
  }
  expect_stale(Open({.factory = "SQ4"}, 1, "v2"), "other count");
  const auto last = Open({.factory = "SQ4"}, 1, "v2");
  EXPECT_TRUE(last->load.ok()) << last->load;
}

TEST_F(FaissKept, BuildsAgainWhatIsDamagedAnywhere) {
  const FaissIndexOptions options{.factory = "SQ8"};
  const auto first = Open(options);
  ASSERT_TRUE(first.ok());
  const auto expected = Answers(*first->index);
  const std::string good = *ReadFile(path());
  for (int round = 0; round < 40; ++round) {
    std::string bad = good;
    const auto at = static_cast<size_t>(random_.Index(static_cast<int64_t>(good.size())));
    if (round % 2 == 0) {
      bad[at] = static_cast<char>(bad[at] ^ (1 << random_.Index(8)));
    } else {
      bad.resize(at);
    }
    ASSERT_TRUE(WriteFileAtomically(path(), bad).ok());
    const auto again = Open(options);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_FALSE(again->load.ok());
    EXPECT_TRUE(again->save.ok());
    EXPECT_EQ(Answers(*again->index), expected);
    EXPECT_EQ(*ReadFile(path()), good);
  }
}

TEST_F(FaissKept, ServesFromMemoryWhereTheFileCannotBeWritten) {
  std::filesystem::remove_all(folder_);
  const auto kept = Open({.factory = "SQ8"});
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->save.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(kept->index->items(), 2000);
}

TEST_F(FaissKept, RefusesBadVectorsBeforeItReads) {
  ASSERT_TRUE(Open({.factory = "SQ8"}).ok());
  vectors_.row(1, 7)[2] = std::nanf("");
  EXPECT_THAT(Open({.factory = "SQ8"}).status().message(),
              HasSubstr("item 7 has nan in column 18"));
}

TEST_F(FaissKept, TellsHowFarABuildIs) {
  Random random(3);
  vectors_ = TestVectors::Gaussian(10'000, {8}, random);
  std::vector<int64_t> added;
  const auto kept = Open({.factory = "SQ8",
                          .progress =
                              [&](int64_t now, int64_t items) {
                                EXPECT_EQ(items, 10'000);
                                added.push_back(now);
                              }},
                         1);
  ASSERT_TRUE(kept.ok());
  ASSERT_GE(added.size(), 2u);
  EXPECT_TRUE(std::is_sorted(added.begin(), added.end()));
  EXPECT_EQ(added.back(), 10'000);
}

}  // namespace
}  // namespace nestrec

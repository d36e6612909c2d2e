// Indexes that are built where there is too little memory for them: an error, and what was there
// goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "index/faiss_index.h"
#include "index/index_file.h"
#include "index/nested_builder.h"
#include "tests/index/test_vectors.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

constexpr int64_t kItems = 20'000;
constexpr rlim_t kMiB = 1024 * 1024;

// Bytes that RLIMIT_DATA counts of this process.
rlim_t DataBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmData:")) return std::stoull(line.substr(7)) * 1024;
  }
  return 0;
}

// For its length this process gets no more than so many further bytes.
class MemoryLeft {
 public:
  explicit MemoryLeft(rlim_t bytes) {
    malloc_trim(0);  // what others had and is free
    getrlimit(RLIMIT_DATA, &before_);
    const rlimit limit{.rlim_cur = DataBytes() + bytes, .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_DATA, &limit), 0);
  }
  ~MemoryLeft() { setrlimit(RLIMIT_DATA, &before_); }

 private:
  rlimit before_{};
};

class OutOfMemoryTest : public ::testing::Test {
 protected:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  void SetUp() override { GTEST_SKIP() << "sanitizers keep memory of their own"; }
#endif
  OutOfMemoryTest() {
    omp_set_num_threads(1);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);  // arrays go back when they are done with
  }

  absl::StatusOr<KeptIndex> Open(const std::string& factory) const {
    const std::string path = absl::StrCat(folder_.path(), "/", IndexFileName(64, factory));
    return factory == kNestedFactory
               ? LoadOrBuildNestedIndex(vectors_.view(), 2, {}, nullptr, path, "v1")
               : LoadOrBuildFaissIndex(vectors_.view(), 2, {.factory = factory}, nullptr, path,
                                       "v1");
  }

  Random random_{1};
  const TestVectors vectors_ = TestVectors::Gaussian(kItems, {32, 64}, random_);
  const TempFolder folder_;
};

TEST_F(OutOfMemoryTest, IsAnErrorAtWhateverPointItComes) {
  for (const std::string factory : {"nested", "Flat", "SQ8", "IVF64,Flat", "IVF64,SQ8", "HNSW4"}) {
    int failed = 0;
    bool built = false;
    for (rlim_t left = kMiB / 2; !built; left = left * 5 / 4) {
      const MemoryLeft limit(left);
      const auto kept = Open(factory);
      built = kept.ok();
      if (!built) {
        EXPECT_EQ(kept.status().code(), absl::StatusCode::kResourceExhausted) << kept.status();
        ++failed;
      }
      ASSERT_LT(left, 4096 * kMiB) << factory << " is never built";
    }
    EXPECT_GT(failed, 2) << factory;
  }
}

TEST_F(OutOfMemoryTest, WhatServesGoesOnServing) {
  const auto serving = BuildFaissIndex(vectors_.view(), 2, {.factory = "IVF64,Flat"}, nullptr);
  ASSERT_TRUE(serving.ok());
  const std::vector<float> query = GaussianVector(64, random_);
  const auto before = (*serving)->Search(query, {.k = 10});
  ASSERT_TRUE(before.ok());
  {
    const MemoryLeft limit(2 * kMiB);
    EXPECT_FALSE(Open("SQ8").ok());
    const auto after = (*serving)->Search(query, {.k = 10});
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->items, before->items);
  }
  EXPECT_TRUE(Open("SQ8").ok());
}

}  // namespace
}  // namespace nestrec

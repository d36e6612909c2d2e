#include "server/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "server/log.h"
#include "server/snapshot.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr int64_t kItems = 1 << 20;  // then bytes of an item are MiB of all

TierTable Tiers(const NestedSizes& sizes, const std::string& index, int min_dim, int dim) {
  TierSettings settings;
  settings.tiers = {{.name = "t", .dim = dim, .index = {.factory = index}, .min_dim = min_dim}};
  return *TierTable::Create(settings, sizes);
}

class EstimateTest : public ::testing::Test {
 protected:
  uint64_t IndexMiB(const std::string& index, int levels) const {
    return EstimateModelMemory(sizes_, levels, Tiers(sizes_, index, 32, 128), kItems, 0, 0)
               .index_bytes /
           kMiB;
  }
  const NestedSizes sizes_ = *NestedSizes::Create({16, 32, 64, 128});
};

// By hand, from docs/kubernetes.md: "auto" is 4 s below 64 columns and s + 20 from there on.
TEST_F(EstimateTest, IsTheFormulaOfTheDocumentation) {
  EXPECT_EQ(IndexMiB("auto", 1), 64u);
  EXPECT_EQ(IndexMiB("auto", 2), 64u + 128);
  EXPECT_EQ(IndexMiB("auto", 3), 64u + 128 + 84);
  EXPECT_EQ(IndexMiB("auto", 4), 64u + 128 + 84 + 148);
  EXPECT_EQ(IndexMiB("nested", 4), IndexMiB("auto", 4) + 52);
  EXPECT_EQ(IndexMiB("Flat", 4), IndexMiB("auto", 4) + 256 + 512);
  EXPECT_EQ(IndexMiB("HNSW32", 3), IndexMiB("auto", 3) + (128 + 300) + (256 + 300));
}

// Codes as FAISS documents them; where they grow by doubling, twice. The tier has the sizes 32 and
// 64 and its index at both.
TEST_F(EstimateTest, CodesOfFaissAreWhatTheirFactoryStringSays) {
  const auto added = [&](const std::string& index) {
    return IndexMiB(index, 3) - IndexMiB("auto", 3);
  };
  EXPECT_EQ(added("SQ8"), 32u + 64);
  EXPECT_EQ(added("SQ4"), 16u + 32);
  EXPECT_EQ(added("SQfp16"), 64u + 128);
  EXPECT_EQ(added("PQ16"), 2u * 16);
  EXPECT_EQ(added("PQ16x12"), 2u * 24);
  EXPECT_EQ(added("PQ5x4"), 2u * 3);
  EXPECT_EQ(added("PQ16x4fs"), 2u * 2 * 8);
  // The centres: 8192 of 32 and of 64 float32 are 1 and 2 MiB.
  EXPECT_EQ(added("IVF8192,SQ8"), 2u * (32 + 8) + 2 * (64 + 8) + 3);
  EXPECT_EQ(added("IVF8192,PQ16x4fs"), 2u * 2 * (8 + 8) + 3);
  for (const char* other : {"HNSW32", "IVF8192,Flat", "OPQ16,PQ16", "IVF8192_HNSW32,PQ16", "SQ8x",
                            "PQ", "PQ16x", "PQ16y4", "IVF0,SQ8", "IVF,SQ8", "IVF8192,"}) {
    EXPECT_EQ(added(other), (128u + 300) + (256 + 300)) << other;
  }
}

TEST_F(EstimateTest, AFloat32CopyIsThereWhileFaissTrains) {
  const auto building = [&](const std::string& index) {
    return EstimateModelMemory(sizes_, 3, Tiers(sizes_, index, 32, 128), kItems, 0, 0)
               .building_bytes /
           kMiB;
  };
  const uint64_t copies = 4 * (32 + 64);
  EXPECT_EQ(building("auto"), 80u);
  EXPECT_EQ(building("SQ8"), 80 + copies);
  EXPECT_EQ(building("SQfp16"), 80u);
  EXPECT_EQ(building("IVF64,SQfp16"), 80 + copies + copies / 64);
  EXPECT_EQ(building("IVF4096,PQ16"), 80 + copies);  // of a sample of all there is no second copy
  EXPECT_EQ(building("IVF1024,PQ16"), 80 + copies + copies / 4);
  EXPECT_EQ(building("HNSW32"), 80u);
  // Of many items a part is enough: as many as kItems, or 256 for each list.
  const auto building_many = [&](const std::string& index) {
    return EstimateModelMemory(sizes_, 3, Tiers(sizes_, index, 32, 128), 100 * kItems, 0, 0)
               .building_bytes /
           kMiB;
  };
  EXPECT_EQ(building_many("PQ16"), 80 + copies);
  EXPECT_EQ(building_many("IVF1024,PQ16"), 80 + copies + copies / 4);
  EXPECT_EQ(building_many("IVF65536,PQ16"), 80 + 16 * copies);
}

TEST_F(EstimateTest, BuildingCostsWhereAnIndexIsNested) {
  const TierTable tiers = Tiers(sizes_, "auto", 32, 128);
  EXPECT_EQ(EstimateModelMemory(sizes_, 2, tiers, kItems, 5, 7).building_bytes, 0u);
  EXPECT_EQ(EstimateModelMemory(sizes_, 3, tiers, kItems, 5, 7).building_bytes, 80 * kMiB);
  EXPECT_EQ(EstimateModelMemory(sizes_, 3, tiers, 4095, 5, 7).building_bytes, 0u);
  const ModelMemory memory = EstimateModelMemory(sizes_, 1, tiers, 100, 5, 7);
  EXPECT_EQ(memory.total(), 5u + 7 + 100 * 4 * 16);
}

TEST_F(EstimateTest, WhatSearchesNothingNeedsNeitherIndexesNorTheItemsVectors) {
  const TierTable tiers = Tiers(sizes_, "auto", 32, 128);
  const uint64_t vectors = (uint64_t{kItems} + 1) * 128 * 4;
  const ModelMemory memory =
      EstimateModelMemory(sizes_, 4, tiers, kItems, vectors + 1000, 0, {.searched = false});
  EXPECT_EQ(memory.total(), 1000u);
}

// Of items that are made of 12 features: views of 16 columns at the nested widths that have more.
TEST_F(EstimateTest, ViewsInFewerColumnsAreCountedWhereItemsAreMadeOfFeaturesAlone) {
  const TierTable tiers = Tiers(sizes_, "auto", 32, 128);
  ModelInfo info{.items = 100'000, .modalities = {{.name = "text", .width = 12}}};
  const auto bytes = [&] { return EstimateReducedBytes(info, sizes_, tiers); };
  const uint64_t expected = 4 * 16 * (100'000 + 64) + 8 * 64 + 4 * 16 * (100'000 + 128) + 8 * 128;
  for (const char* recipe : {"", "{}", R"({"item_residual":false})"}) {
    info.recipe_json = recipe;
    EXPECT_EQ(bytes(), expected) << recipe;
  }
  info.modalities.push_back({.name = "image", .width = 40});  // 64 columns: too many for width 64
  EXPECT_EQ(bytes(), 4u * 64 * (100'000 + 128) + 8 * 128);
  info.modalities[1].width = 400;
  EXPECT_EQ(bytes(), 0u);
  info.modalities = {{.name = "text", .width = 12}};
  info.items = 1'000'000;  // more than views are made for
  EXPECT_EQ(bytes(), 0u);
  info.items = 100'000;
  info.recipe_json = R"({"item_residual":true})";
  EXPECT_EQ(bytes(), 0u);
  info.recipe_json = "";
  info.modalities = {};  // learned vectors alone
  EXPECT_EQ(bytes(), 0u);
}

class CheckTest : public ::testing::Test {
 protected:
  // Mapped, indexes and fields of the narrow and of the wide one.
  MemoryRequest Request() const {
    return {
        .path = "m.safetensors",
        .dims = {64, 256},
        .models = {{.mapped_bytes = 100 * kMiB, .index_bytes = 50 * kMiB, .field_bytes = 10 * kMiB},
                   {.mapped_bytes = 400 * kMiB,
                    .index_bytes = 200 * kMiB,
                    .field_bytes = 10 * kMiB,
                    .building_bytes = 80 * kMiB}}};
  }
  static MemoryLimit Group(uint64_t left_mib) {
    return {.name = "the group", .limit_bytes = 1024 * kMiB, .left_bytes = left_mib * kMiB};
  }
  static std::string Message(const MemoryRequest& request, std::vector<MemoryLimit> limits) {
    const absl::Status status = CheckMemory(request, limits);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    return std::string(status.message());
  }
};

TEST_F(CheckTest, WhatJustFitsIsTakenAndAByteMoreIsNot) {
  EXPECT_TRUE(CheckMemory(Request(), {}).ok());
  EXPECT_TRUE(CheckMemory(Request(), std::vector{Group(690)}).ok());
  MemoryLimit limit = Group(690);
  --limit.left_bytes;
  EXPECT_FALSE(CheckMemory(Request(), std::vector{limit}).ok());
  EXPECT_FALSE(CheckMemory(Request(), std::vector{Group(2000), limit}).ok());
}

TEST_F(CheckTest, SaysWhatIsNeededWhatIsLeftAndWhatWouldHelp) {
  EXPECT_EQ(
      Message(Request(), {Group(300)}),
      "m.safetensors at --max-dim 256 needs 690 MiB more (weights and vectors 400 MiB, indexes "
      "200 MiB, catalogue fields 10 MiB, building indexes 80 MiB), but of the group, 1.0 GiB, "
      "only 300 MiB is left; --max-dim 64 would fit; or give it more memory, or start with "
      "--memory-limit none where this estimate is wrong");
  EXPECT_THAT(Message(Request(), {Group(159)}),
              HasSubstr("no --max-dim of this model would fit: give it more memory"));
}

TEST_F(CheckTest, ANarrowerWidthIsNamedOnlyWhereEveryLimitTakesIt) {
  MemoryLimit other = Group(100);
  EXPECT_THAT(Message(Request(), {Group(300), other}), Not(HasSubstr("would fit;")));
}

TEST_F(CheckTest, SessionStatesAndModelsInUseCountToo) {
  MemoryRequest request = Request();
  request.state_bytes = 256 * kMiB;
  request.held_bytes = 400 * kMiB;
  EXPECT_TRUE(CheckMemory(request, std::vector{Group(690 + 656)}).ok());
  EXPECT_THAT(
      Message(request, {Group(690 + 655)}),
      AllOf(HasSubstr("needs 1.3 GiB more"), HasSubstr("session states up to 256 MiB"),
            HasSubstr("the models in use 400 MiB"), HasSubstr("lower --session-state-bytes")));
}

TEST_F(CheckTest, WhatCallsMayTakeCountsToo) {
  MemoryRequest request = Request();
  request.call_bytes = 64 * kMiB;
  EXPECT_TRUE(CheckMemory(request, std::vector{Group(690 + 64)}).ok());
  EXPECT_THAT(Message(request, {Group(690 + 63)}),
              AllOf(HasSubstr("needs 754 MiB more"), HasSubstr("calls up to 64 MiB"),
                    HasSubstr("lower --max-call-memory")));
}

TEST_F(CheckTest, WhatIsMappedAlreadyIsNotAskedForAgain) {
  MemoryLimit space = Group(290);
  space.counts_mappings = true;
  MemoryRequest request = Request();
  request.held_bytes = 400 * kMiB;
  EXPECT_TRUE(CheckMemory(request, std::vector{space}).ok());
  space.left_bytes -= 1;
  EXPECT_THAT(Message(request, {space}), Not(HasSubstr("weights and vectors")));
}

class MemoryBudgetTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(RandomModel({.items = 5000}).Write(path_).ok()); }
  absl::StatusOr<std::shared_ptr<const Snapshot>> Load(std::shared_ptr<const MemoryBudget> budget) {
    return Snapshot::Load(
        {.path = path_, .memory = std::move(budget)},
        Log([this](absl::string_view line) { lines_ += std::string(line) + "\n"; }));
  }
  std::shared_ptr<const MemoryBudget> Budget(std::string limit) {
    return std::make_shared<const MemoryBudget>(MemoryBudget::Options{
        .limit = std::move(limit),
        .limits =
            [this] {
              return std::vector<MemoryLimit>{
                  {.name = "what is left", .limit_bytes = left_bytes_, .left_bytes = left_bytes_}};
            },
        .anonymous_bytes = [] { return kMiB; }});
  }

  const TempFolder folder_;
  const std::string path_ = folder_.File("m.safetensors");
  uint64_t left_bytes_ = 0;
  std::string lines_;
};

TEST_F(MemoryBudgetTest, EstimatesWhatASnapshotThenHas) {
  left_bytes_ = uint64_t{1} << 40;
  const auto snapshot = Load(Budget("auto"));
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  const auto& sizes = (*snapshot)->sizes();
  const ModelMemory memory = EstimateModelMemory(sizes, 3, (*snapshot)->tiers(), 5000, 0, 0);
  int64_t built = 0;
  for (const int dim : sizes.values()) {
    built += static_cast<int64_t>((*snapshot)->index(dim, {}).bytes());
  }
  EXPECT_NEAR(static_cast<double>(memory.index_bytes), static_cast<double>(built),
              0.05 * static_cast<double>(built));
  EXPECT_THAT(lines_, HasSubstr("info model_memory mapped_bytes="));
  EXPECT_THAT(lines_, HasSubstr(absl::StrCat(" index_bytes=", memory.index_bytes, " ")));
  // The sample stands for all fields.
  const size_t at = lines_.find("field_bytes=");
  ASSERT_NE(at, std::string::npos);
  const double fields = std::stod(lines_.substr(at + 12));
  const auto truth = static_cast<double>((*snapshot)->attributes().bytes());
  EXPECT_GT(fields, 0.5 * truth);
  EXPECT_LT(fields, 2 * truth);
}

TEST_F(MemoryBudgetTest, AModelThatDoesNotFitBesideTheOneInUseIsRefusedUntilThatOneIsGone) {
  const std::shared_ptr<const MemoryBudget> budget = Budget("auto");
  left_bytes_ = uint64_t{1} << 40;
  absl::StatusOr<std::shared_ptr<const Snapshot>> first = Load(budget);
  ASSERT_TRUE(first.ok()) << first.status();
  const uint64_t mapped = (*first)->checkpoint().LevelBytes(3);
  const uint64_t need =
      mapped +
      EstimateModelMemory((*first)->sizes(), 3, (*first)->tiers(), 5000, 0, 0).index_bytes +
      2 * static_cast<uint64_t>((*first)->attributes().bytes());
  left_bytes_ = need + mapped - 1;  // enough for one, whatever the fields' estimate
  left_bytes_ = mapped + (need - mapped) / 2;
  const auto second = Load(budget);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(second.status().message(), HasSubstr("the models in use"));
  left_bytes_ = need;
  first = absl::NotFoundError("");  // its last request has ended
  EXPECT_TRUE(Load(budget).ok());
}

// The model's items are made of 12 features, by its header.
TEST_F(MemoryBudgetTest, ViewsInFewerColumnsAreAllowedWhereTheyAndANextVersionFit) {
  ASSERT_TRUE(RandomModel({.sizes = {16, 64}, .items = 5000}).Write(path_).ok());
  const uint64_t views = 4 * 16 * (5000 + 64) + 8 * 64;
  const auto reserved = [&](const std::shared_ptr<const MemoryBudget>& budget) {
    lines_.clear();
    auto snapshot = Load(budget);
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    const size_t at = lines_.find("reduced_bytes=");
    EXPECT_NE(at, std::string::npos) << lines_;
    return std::pair(std::move(snapshot), std::stoull(lines_.substr(at + 14)));
  };
  EXPECT_EQ(reserved(Budget("none")).second, views);
  const std::shared_ptr<const MemoryBudget> budget = Budget("auto");
  left_bytes_ = uint64_t{1} << 40;
  const auto [first, of_first] = reserved(budget);
  EXPECT_EQ(of_first, views);
  const ModelMemory memory = EstimateModelMemory((*first)->sizes(), 2, (*first)->tiers(), 5000,
                                                 (*first)->checkpoint().LevelBytes(2), 0);
  left_bytes_ = 2 * memory.total();           // without fields
  EXPECT_EQ(reserved(budget).second, views);  // the first one makes room for the next
  EXPECT_EQ(reserved(Budget("auto")).second, 0u);
}

TEST_F(MemoryBudgetTest, AModelThatDoesNotFitIsRefusedBeforeItsArraysAreRead) {
  // What is behind the header is nonsense, which whoever reads it says.
  const std::string bytes = *ReadFile(path_);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const size_t arrays = 8 + static_cast<size_t>(header);
  ASSERT_LT(arrays, bytes.size());
  ASSERT_TRUE(
      WriteFileAtomically(path_, bytes.substr(0, arrays) + std::string(bytes.size() - arrays, '?'))
          .ok());
  left_bytes_ = uint64_t{1} << 40;
  EXPECT_EQ(Load(Budget("auto")).status().code(), absl::StatusCode::kDataLoss);
  left_bytes_ = 1000;
  EXPECT_EQ(Load(Budget("auto")).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(MemoryBudgetTest, TheProcesssOwnLimitAndNoneTakeThePlaceOfTheMachines) {
  left_bytes_ = 0;
  EXPECT_FALSE(Load(Budget("auto")).ok());
  EXPECT_TRUE(Load(Budget("none")).ok());
  EXPECT_TRUE(Load(Budget("100000000")).ok());
  const auto refused = Load(Budget("1048577"));
  EXPECT_THAT(refused.status().message(),
              HasSubstr("of --memory-limit, 1 MiB, only 0 MiB is left"));
}

TEST_F(MemoryBudgetTest, OnlyLimitsThatMeanSomethingAreTaken) {
  for (const char* good : {"auto", "none", "1", "4294967296"}) {
    EXPECT_TRUE(MemoryBudget::CheckLimit(good).ok()) << good;
  }
  for (const char* bad : {"", "0", "-1", "4G", "18446744073709551616", "some"}) {
    const absl::Status status = MemoryBudget::CheckLimit(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(status.message(), HasSubstr("is not auto, none or a number of bytes"));
  }
}

TEST(IndexesOf, AreThoseOfEverySizeAndTheTiersOwn) {
  const NestedSizes sizes = *NestedSizes::Create({32, 64});
  const IndexSpec flat{.factory = "Flat"}, nested{.factory = "nested"}, hnsw{.factory = "HNSW32"};
  EXPECT_THAT(IndexesOf(sizes, Tiers(sizes, "HNSW32", 64, 64), 5000),
              UnorderedElementsAre(Pair(32, flat), Pair(64, nested), Pair(64, hnsw)));
}

}  // namespace
}  // namespace nestrec

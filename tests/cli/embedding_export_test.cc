// nestrec export --embeddings: what another engine gets is what this one searches.
#include "cli/embedding_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/npy.h"
#include "model/checkpoint.h"
#include "model/encoder.h"
#include "tests/cli/program.h"
#include "tests/testing/full_disk.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int kItems = 200;

// id and vector of every item, in the file's order.
using Exported = std::vector<std::pair<std::string, std::vector<float>>>;

std::vector<std::string> LinesOf(const std::string& path) {
  return absl::StrSplit(ReadFile(path).value_or(""), '\n', absl::SkipEmpty());
}

Exported ReadJsonLines(const std::string& path) {
  Exported exported;
  for (const std::string& line : LinesOf(path)) {
    const nlohmann::json parsed = nlohmann::json::parse(line);
    exported.emplace_back(parsed.at("item_id"), parsed.at("vector").get<std::vector<float>>());
  }
  return exported;
}

Exported ReadMatrix(const std::string& path, const std::string& ids) {
  Exported exported;
  const absl::StatusOr<Matrix> matrix = ReadNpy(path);
  const std::vector<std::string> lines = LinesOf(ids);
  if (!matrix.ok() || static_cast<int64_t>(lines.size()) != matrix->rows) return exported;
  for (int64_t row = 0; row < matrix->rows; ++row) {
    const std::span<const float> values = matrix->row(row);
    exported.emplace_back(nlohmann::json::parse(lines[static_cast<size_t>(row)]),
                          std::vector<float>(values.begin(), values.end()));
  }
  return exported;
}

class EmbeddingExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RandomModel({.items = kItems}).Write(model_).ok());
    absl::StatusOr<std::shared_ptr<const Checkpoint>> opened = Checkpoint::Open(model_, {});
    ASSERT_TRUE(opened.ok());
    checkpoint_ = *opened;
  }

  // What the checkpoint itself has of every item.
  Exported Stored(int dim) const {
    Exported stored;
    const ModelView& view = checkpoint_->view();
    for (int64_t item = 1; item <= kItems; ++item) {
      std::vector<float> vector;
      for (int level = 0; view.sizes.begin(level) < dim; ++level) {
        for (int column = 0; column < view.sizes.width(level); ++column) {
          vector.push_back(view.items[static_cast<size_t>(level)][static_cast<size_t>(
              item * view.sizes.width(level) + column)]);
        }
        if (view.sizes.end(level) == dim) break;
      }
      stored.emplace_back(RandomModelItemId(item), std::move(vector));
    }
    return stored;
  }

  ProgramResult Export(int dim, const std::string& output, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"export", "--embeddings",    "--model", model_,
                                          "--dim",  absl::StrCat(dim), "-o",      output};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }

  const TempFolder folder_;
  const std::string model_ = folder_.File("m.safetensors");
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(EmbeddingExportTest, BothFormatsHoldTheCheckpointsVectorsBitForBitAtEveryWidth) {
  for (const int dim : {8, 16, 32}) {
    const std::string lines = folder_.File(absl::StrCat(dim, ".jsonl"));
    const std::string matrix = folder_.File(absl::StrCat(dim, ".npy"));
    const ProgramResult result = Export(dim, lines);
    ASSERT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output,
                HasSubstr(absl::StrCat("200 vectors of ", dim, " columns, model version ",
                                       checkpoint_->info().version)));
    ASSERT_EQ(Export(dim, matrix).exit_code, 0);
    const Exported stored = Stored(dim);
    EXPECT_EQ(ReadJsonLines(lines), stored);
    EXPECT_EQ(ReadMatrix(matrix, folder_.File(absl::StrCat(dim, ".ids.jsonl"))), stored);
  }
}

TEST_F(EmbeddingExportTest, AnEngineThatTakesInnerProductsFindsTheItemsThatTheModelDoes) {
  const std::string lines = folder_.File("v.jsonl");
  ASSERT_EQ(Export(16, lines).exit_code, 0);
  const absl::StatusOr<std::unique_ptr<const Encoder>> encoder =
      Encoder::Create(checkpoint_->view(), checkpoint_);
  ASSERT_TRUE(encoder.ok());
  const std::vector<int32_t> items = {14, 15, 92};
  const History history(items);
  std::vector<float> z(16);
  ASSERT_TRUE((*encoder)->Encode({&history, 1}, 2, z).ok());
  std::string best;
  double most = -std::numeric_limits<double>::infinity();
  for (const auto& [id, vector] : ReadJsonLines(lines)) {
    double score = 0;
    for (size_t column = 0; column < z.size(); ++column)
      score += double{z[column]} * vector[column];
    if (score > most) {
      most = score;
      best = id;
    }
  }
  const RunningServer server = StartServer(model_, folder_.path());
  const ProgramResult asked =
      RunProgram({"recommend", "--server", server.address, "--dim", "16", "--k", "1",
                  "--include-seen", "--history", "item-14,item-15,item-92"});
  ASSERT_EQ(asked.exit_code, 0) << asked.output;
  EXPECT_THAT(asked.output, HasSubstr(best));
}

TEST_F(EmbeddingExportTest, WhatIsInTheWayStaysUnlessItMayBeReplaced) {
  const std::string matrix = folder_.File("v.npy");
  const std::string ids = folder_.File("v.ids.jsonl");
  ASSERT_TRUE(WriteFileAtomically(ids, "mine").ok());
  const ProgramResult refused = Export(8, matrix);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("v.ids.jsonl exists; --overwrite replaces it"));
  EXPECT_EQ(ReadFile(ids).value_or(""), "mine");
  EXPECT_FALSE(FileExists(matrix));
  ASSERT_EQ(Export(8, matrix, {"--overwrite"}).exit_code, 0);
  ASSERT_EQ(Export(32, matrix, {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(ReadMatrix(matrix, ids), Stored(32));
}

TEST_F(EmbeddingExportTest, SaysWhatItCannotDo) {
  const ProgramResult narrow = Export(12, folder_.File("v.jsonl"));
  EXPECT_EQ(narrow.exit_code, 1);
  EXPECT_THAT(narrow.output, HasSubstr("12"));
  EXPECT_THAT(narrow.output, HasSubstr("8,16,32"));
  const ProgramResult format = Export(8, folder_.File("v.parquet"));
  EXPECT_EQ(format.exit_code, 2);
  EXPECT_THAT(format.output, HasSubstr("v.parquet: the name says the format of vectors: .jsonl"));
  EXPECT_EQ(RunProgram({"export", "--embeddings", "--model", model_, "-o", "v.jsonl"}).exit_code,
            2);
  EXPECT_EQ(RunProgram({"export", "--embeddings", "--events", "log", "-o", "v.jsonl"}).exit_code,
            2);
  EXPECT_EQ(Export(8, folder_.File("none/v.jsonl")).exit_code, 1);
  EXPECT_FALSE(FileExists(folder_.File("v.jsonl")));
}

TEST_F(EmbeddingExportTest, AVectorThatIsNotFiniteIsNamed) {
  const RandomModel model({.items = kItems});
  std::vector<float> wide(model.view().items[2].begin(), model.view().items[2].end());
  wide[7 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
  ModelView view = model.view();
  view.items[2] = wide;
  ASSERT_TRUE(
      WriteCheckpoint(model_, view, model.info(), model.catalogue(), nullptr).status().ok());
  const ProgramResult refused = Export(32, folder_.File("v.jsonl"));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("column 19 of item 7 (\"item-7\") is nan"));
  EXPECT_FALSE(FileExists(folder_.File("v.jsonl")));
  EXPECT_EQ(Export(16, folder_.File("v.jsonl")).exit_code, 0);  // its levels are sound
}

TEST_F(EmbeddingExportTest, AFullDiskLeavesWhatWasThere) {
  for (const char* name : {"v.jsonl", "v.npy"}) {
    const std::string output = folder_.File(name);
    ASSERT_TRUE(WriteFileAtomically(output, "before").ok());
    {
      const FullDisk full(4096);
      const absl::Status status = ExportEmbeddings(*checkpoint_, output, [](int64_t) {});
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    }
    EXPECT_EQ(ReadFile(output).value_or(""), "before");
  }
  // Nothing half done lies about.
  const std::filesystem::directory_iterator files(folder_.path());
  EXPECT_EQ(std::distance(files, std::filesystem::directory_iterator()), 3);
}

}  // namespace
}  // namespace nestrec

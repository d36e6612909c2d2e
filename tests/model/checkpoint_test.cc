#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "base/random.h"
#include "model/checkpoint_metadata.h"
#include "model/encoder.h"
#include "model/metrics_json.h"
#include "model/model_view.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest()
      : model_({.sizes = {4, 8, 20}, .blocks = 2, .items = 30}),
        path_(folder_.File("m.safetensors")) {
    EXPECT_TRUE(model_.Write(path_).ok());
    bytes_ = *ReadFile(path_);
  }

  absl::Status OpenBytes(const std::string& bytes, int max_dim = 0) {
    const std::string path = folder_.File("damaged.safetensors");
    EXPECT_TRUE(WriteFileAtomically(path, bytes).ok());
    return Checkpoint::Open(path, {.max_dim = max_dim}).status();
  }

  static std::vector<float> EncodeSome(const Checkpoint& checkpoint, int levels) {
    const auto encoder = *Encoder::Create(checkpoint.view(), nullptr);
    const std::vector<int32_t> history = {3, 1, 4, 1, 5, 9, 26};
    const std::vector<History> histories = {history, History()};
    std::vector<float> z(2 * static_cast<size_t>(checkpoint.sizes().end(levels - 1)));
    EXPECT_TRUE(encoder->Encode(histories, levels, z).ok());
    return z;
  }

  TempFolder folder_;
  RandomModel model_;
  std::string path_;
  std::string bytes_;
};

// Compares all tensors of two views.
void ExpectSameTensors(ModelView actual, ModelView expected, int64_t feature_width) {
  ASSERT_EQ(actual.sizes, expected.sizes);
  EXPECT_EQ(actual.architecture, expected.architecture);
  const auto tensors = [feature_width](ModelView& view, int level) {
    std::vector<std::pair<std::string, std::span<const float>>> list;
    EXPECT_TRUE(VisitLevel(view, feature_width, level,
                           [&list](const std::string& name, const std::vector<int64_t>&,
                                   std::span<const float>& values) {
                             list.emplace_back(name, values);
                             return absl::OkStatus();
                           })
                    .ok());
    return list;
  };
  for (int level = 0; level < actual.sizes.levels(); ++level) {
    const auto a = tensors(actual, level);
    const auto b = tensors(expected, level);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].first, b[i].first);
      EXPECT_TRUE(std::ranges::equal(a[i].second, b[i].second)) << a[i].first;
    }
  }
}

TEST_F(CheckpointTest, KeepsWeightsItemsCatalogueAndMetadata) {
  const auto checkpoint = Checkpoint::Open(path_, {});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->sizes().ToString(), "4,8,20");
  EXPECT_EQ((*checkpoint)->info().items, 30);
  EXPECT_EQ((*checkpoint)->info().version.size(), 16u);
  EXPECT_EQ((*checkpoint)->info().test.size(), 3u);
  EXPECT_EQ((*checkpoint)->catalogue()->id(3), RandomModelItemId(3));
  EXPECT_EQ((*checkpoint)->catalogue()->Find(RandomModelItemId(30)), 30);
  ExpectSameTensors((*checkpoint)->view(), model_.view(), FeatureWidth((*checkpoint)->info()));
}

TEST_F(CheckpointTest, KeepsEveryArchitectureAndItsPrefixes) {
  const std::vector<Architecture> architectures = {
      {.mixer = Mixer::kGru},
      {.mixer = Mixer::kAttention, .head_width = 3},
      {.mixer = Mixer::kAttention,
       .head_width = 4,
       .feed_forward = FeedForward::kRelu,
       .final_norm = true,
       .input_scale = 0.1f},
      {.mixer = Mixer::kLru, .final_norm = true},
  };
  for (const Architecture& architecture : architectures) {
    SCOPED_TRACE(Describe(architecture));
    for (const int feature_width : {0, 5}) {  // learned vectors alone, or content
      const RandomModel model({.sizes = {4, 8, 20},
                               .blocks = 2,
                               .items = 30,
                               .feature_width = feature_width,
                               .architecture = architecture});
      const std::string path = folder_.File("kept.safetensors");
      ASSERT_TRUE(model.Write(path).ok());
      const auto checkpoint = Checkpoint::Open(path, {});
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      EXPECT_EQ((*checkpoint)->info().modalities.empty(), feature_width == 0);
      ExpectSameTensors((*checkpoint)->view(), model.view(), feature_width);

      const std::string narrow_path = folder_.File("kept_narrow.safetensors");
      ASSERT_TRUE((*checkpoint)->Export(2, narrow_path).ok());
      const auto narrow = Checkpoint::Open(narrow_path, {});
      ASSERT_TRUE(narrow.ok()) << narrow.status();
      const std::vector<float> wide_z = EncodeSome(**checkpoint, 3);
      const std::vector<float> narrow_z = EncodeSome(**narrow, 2);
      for (size_t row = 0; row < 2; ++row) {
        for (size_t c = 0; c < 8; ++c) EXPECT_EQ(narrow_z[row * 8 + c], wide_z[row * 20 + c]);
      }
    }
  }
}

TEST_F(CheckpointTest, AFileThatNamesNoMixerIsAnLru) {
  const auto file = *SafetensorsFile::Open(path_, true);
  std::map<std::string, std::string> metadata = file->metadata();
  ASSERT_EQ(metadata.erase("mixer"), 1u);
  const auto parsed = ParseMetadata(path_, metadata);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->architecture, Architecture());
}

TEST_F(CheckpointTest, ExportedPrefixIsTheBigModelAtThatSize) {
  const auto whole = *Checkpoint::Open(path_, {});
  const std::string narrow_path = folder_.File("narrow.safetensors");
  ASSERT_TRUE(whole->Export(2, narrow_path).ok());
  const auto narrow = Checkpoint::Open(narrow_path, {});
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_EQ((*narrow)->sizes().ToString(), "4,8");
  EXPECT_EQ((*narrow)->info().test.size(), 2u);
  EXPECT_LT((*narrow)->file().size_bytes(), whole->file().size_bytes());
  const std::vector<float> wide = EncodeSome(*whole, 3);
  const std::vector<float> exported = EncodeSome(**narrow, 2);
  for (size_t row = 0; row < 2; ++row) {
    for (size_t c = 0; c < 8; ++c) EXPECT_EQ(exported[row * 8 + c], wide[row * 20 + c]);
  }
  EXPECT_FALSE(whole->Export(0, narrow_path).ok());
  EXPECT_FALSE(whole->Export(4, narrow_path).ok());
}

TEST_F(CheckpointTest, AWriterNeverLosesTheOldFileAndTheSameModelHasTheSameVersion) {
  const std::string copy = folder_.File("copy.safetensors");
  ASSERT_TRUE(model_.Write(copy).ok());
  EXPECT_EQ((*Checkpoint::Open(copy, {}))->info().version,
            (*Checkpoint::Open(path_, {}))->info().version);
}

TEST_F(CheckpointTest, OpensOnlyTheLevelsThatAreAskedFor) {
  const auto narrow = Checkpoint::Open(path_, {.max_dim = 8});
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_EQ((*narrow)->sizes().ToString(), "4,8");
  EXPECT_EQ((*narrow)->stored_sizes().ToString(), "4,8,20");
  // Damage in the widest level is nobody's business at dim 8, and is found at dim 20.
  const auto file = *SafetensorsFile::Open(path_, true);
  std::string damaged = bytes_;
  damaged[file->Find("items.level2")->begin_bytes] ^= 1;
  EXPECT_TRUE(OpenBytes(damaged, 8).ok());
  EXPECT_THAT(OpenBytes(damaged).message(), HasSubstr("'items.level2'"));
  EXPECT_THAT(Checkpoint::Open(path_, {.max_dim = 9}).status().message(),
              HasSubstr("9 is not one of this model's sizes 4,8,20"));
}

TEST_F(CheckpointTest, LevelsAreInTheOrderOfTheFile) {
  const auto file = *SafetensorsFile::Open(path_, true);
  int previous = 0;
  for (const TensorInfo& tensor : file->tensors()) {
    const std::optional<int> level = LevelOfTensor(tensor.name);
    if (!level) continue;
    EXPECT_GE(*level, previous) << tensor.name;
    previous = *level;
  }
  EXPECT_EQ(previous, 2);
}

TEST_F(CheckpointTest, EveryTruncationIsRefused) {
  // Every length near a structural place, and a thousand others.
  const auto file = *SafetensorsFile::Open(path_, true);
  std::vector<size_t> lengths;
  for (size_t length = 0; length < 200; ++length) lengths.push_back(length);
  for (const TensorInfo& tensor : file->tensors()) {
    for (int offset = -1; offset <= 1; ++offset) {
      lengths.push_back(tensor.begin_bytes + static_cast<size_t>(offset));
      lengths.push_back(tensor.begin_bytes + tensor.size_bytes + static_cast<size_t>(offset));
    }
  }
  Random random(1);
  for (int i = 0; i < 300; ++i)
    lengths.push_back(static_cast<size_t>(random.Index(static_cast<int64_t>(bytes_.size()))));
  int refused = 0;
  for (const size_t length : lengths) {
    if (length >= bytes_.size()) continue;
    const absl::Status status = OpenBytes(bytes_.substr(0, length));
    ASSERT_FALSE(status.ok()) << "cut to " << length;
    EXPECT_THAT(status.message(), HasSubstr("damaged.safetensors"));
    ++refused;
  }
  EXPECT_GT(refused, 500);
}

TEST_F(CheckpointTest, EveryFlippedBitIsRefusedAndTheTensorNamed) {
  const auto file = *SafetensorsFile::Open(path_, true);
  const uint64_t data_begin = file->tensors().front().begin_bytes;
  Random random(2);
  int named = 0;
  const auto flip = [&](size_t at, const std::string& tensor) {
    std::string damaged = bytes_;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random.Index(8)));
    const absl::Status status = OpenBytes(damaged);
    ASSERT_FALSE(status.ok()) << "byte " << at;
    if (!tensor.empty()) {
      EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("'", tensor, "'"))) << at;
      ++named;
    }
  };
  for (size_t at = 0; at < 120; ++at) flip(at, "");
  for (int i = 0; i < 300; ++i)
    flip(static_cast<size_t>(random.Index(static_cast<int64_t>(data_begin))), "");
  for (const TensorInfo& tensor : file->tensors()) {
    if (tensor.size_bytes == 0) continue;
    flip(tensor.begin_bytes, tensor.name);
    flip(tensor.begin_bytes +
             static_cast<size_t>(random.Index(static_cast<int64_t>(tensor.size_bytes))),
         tensor.name);
    flip(tensor.begin_bytes + tensor.size_bytes - 1, tensor.name);
  }
  EXPECT_GT(named, 300);
}

// A checkpoint whose metadata was changed by a program that fixes the checksums: still refused, by
// content.
class CheckpointMetadataTest : public CheckpointTest {
 protected:
  absl::Status OpenWith(const std::string& key, const std::string& value) {
    const auto file = *SafetensorsFile::Open(path_, true);
    SafetensorsWriter writer;
    for (const TensorInfo& tensor : file->tensors()) {
      if (tensor.dtype == DType::kF32)
        writer.Add(tensor.name, tensor.shape, *file->Floats(tensor.name, tensor.shape));
      if (tensor.dtype == DType::kI64)
        writer.Add(tensor.name, tensor.shape, *file->Int64s(tensor.name, tensor.shape));
      if (tensor.dtype == DType::kU8) writer.AddText(tensor.name, *file->Text(tensor.name));
    }
    for (const auto& [k, v] : file->metadata()) writer.SetMetadata(k, v);
    writer.SetMetadata("validation_metrics", "[]");
    writer.SetMetadata("test_metrics", "[]");
    writer.SetMetadata(key, value);
    const std::string path = folder_.File("edited.safetensors");
    EXPECT_TRUE(writer.Write(path).ok());
    return Checkpoint::Open(path, {}).status();
  }
};

TEST_F(CheckpointMetadataTest, InconsistentMetadataIsRefusedWithItsKey) {
  EXPECT_TRUE(OpenWith("name", "another").ok());
  EXPECT_EQ(OpenWith("format_version", "2").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(OpenWith("format_version", "2").message(), HasSubstr("use a newer nestrec"));
  EXPECT_THAT(OpenWith("format", "other").message(), HasSubstr("not a nestrec checkpoint"));
  const std::string of_another = R"([{"dim":4,"users":0}])";
  EXPECT_THAT(OpenWith("test_metrics", of_another).message(), HasSubstr("'recall@5' is missing"));
  EXPECT_THAT(OpenWith("test_metrics", MetricsToJson({{4, {}}}).dump()).message(),
              HasSubstr("is not about the sizes 4,8,20"));
  EXPECT_THAT(OpenWith("sizes", "8,4").message(), HasSubstr("not strictly increasing"));
  EXPECT_THAT(OpenWith("sizes", "4,8,24").message(), HasSubstr("level2"));
  EXPECT_THAT(OpenWith("sizes", "4,8,20,40").message(), HasSubstr("level3.weight' is missing"));
  EXPECT_THAT(OpenWith("blocks", "3").message(), HasSubstr("'block.2."));
  EXPECT_THAT(OpenWith("blocks", "0").message(), HasSubstr("'blocks' is '0'"));
  EXPECT_THAT(OpenWith("items", "31").message(), HasSubstr("items.level0"));
  EXPECT_THAT(OpenWith("items", "99999999999999999999").message(), HasSubstr("'items'"));
  EXPECT_THAT(OpenWith("max_len", "-1").message(), HasSubstr("'max_len'"));
  EXPECT_THAT(OpenWith("modalities", "{}").message(), HasSubstr("'modalities'"));
  EXPECT_THAT(OpenWith("mixer", "rnn").message(),
              HasSubstr("'mixer': 'rnn' is unknown; use lru, gru or attention"));
  EXPECT_THAT(OpenWith("mixer", "gru").message(), HasSubstr("block.0.gru.Wr.level0.weight"));
  EXPECT_THAT(OpenWith("mixer", "attention").message(), HasSubstr("'head_width' is missing"));
  EXPECT_THAT(OpenWith("feed_forward", "tanh").message(), HasSubstr("'feed_forward'"));
  EXPECT_THAT(OpenWith("final_norm", "2").message(), HasSubstr("'final_norm'"));
  EXPECT_THAT(OpenWith("final_norm", "1").message(), HasSubstr("final_norm.scale.level0"));
  for (const char* scale : {"0", "-1", "nan", "inf", "wide"}) {
    EXPECT_THAT(OpenWith("input_scale", scale).message(), HasSubstr("'input_scale'")) << scale;
  }
  EXPECT_THAT(OpenWith("modalities", R"([{"name":"text","width":13,"scaling":"none"}])").message(),
              HasSubstr("projector.level0.weight"));
  EXPECT_THAT(OpenWith("test_metrics", "{").message(), HasSubstr("'test_metrics'"));
}

TEST_F(CheckpointTest, OtherFilesAreRefusedClearly) {
  EXPECT_EQ(Checkpoint::Open(folder_.File("missing"), {}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(OpenBytes("").message(), HasSubstr("less than the 8"));
  EXPECT_THAT(OpenBytes("PK\x03\x04 a zip file of another program").message(),
              HasSubstr("header length"));
  const std::string golden =
      absl::StrCat(NESTREC_SOURCE_DIR, "/tests/golden/fmrlrec_tiny.safetensors");
  EXPECT_EQ(Checkpoint::Open(golden, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace nestrec

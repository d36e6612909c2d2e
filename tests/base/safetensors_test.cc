#include "base/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest()
      : path_(absl::StrCat(testing::TempDir(), "/nestrec_safetensors_test_", getpid())) {}
  ~SafetensorsTest() override { std::filesystem::remove(path_); }

  void WriteExample() {
    SafetensorsWriter writer;
    const std::vector<float> floats = {1, 2, 3, 4, 5, 6};
    const std::vector<int64_t> integers = {7, 8, 9};
    writer.Add("b.floats", {2, 3}, floats);
    writer.Add("a.integers", {3}, integers);
    writer.AddText("text", "caf\xc3\xa9");
    writer.Add("empty", {0, 5}, std::span<const float>());
    writer.SetMetadata("answer", "42");
    const auto fingerprint = writer.Write(path_);
    ASSERT_TRUE(fingerprint.ok()) << fingerprint.status();
  }
  // A file in the plain format, as other programs write it.
  void WritePlain(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
    ASSERT_TRUE(WriteFileAtomically(path_, bytes + header + data).ok());
  }
  absl::Status OpenPlain(const std::string& header, const std::string& data) {
    WritePlain(header, data);
    return SafetensorsFile::Open(path_, /*require_checksums=*/false).status();
  }
  // Opens with checksums and verifies every byte.
  absl::Status OpenAndVerify() {
    const auto file = SafetensorsFile::Open(path_, /*require_checksums=*/true);
    if (!file.ok()) return file.status();
    for (const TensorInfo& tensor : (*file)->tensors()) {
      if (const absl::Status status = (*file)->Verify(tensor); !status.ok()) return status;
    }
    return (*file)->VerifyPadding();
  }

  std::string path_;
};

TEST_F(SafetensorsTest, ReadsWhatItWrites) {
  WriteExample();
  const auto file = SafetensorsFile::Open(path_, /*require_checksums=*/true);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata(), (std::map<std::string, std::string>{{"answer", "42"}}));
  const auto floats = (*file)->Floats("b.floats", {2, 3});
  ASSERT_TRUE(floats.ok());
  EXPECT_EQ((*floats)[5], 6.0f);
  EXPECT_EQ((*(*file)->Int64s("a.integers", {3}))[2], 9);
  EXPECT_EQ(*(*file)->Text("text"), "caf\xc3\xa9");
  EXPECT_EQ((*file)->tensors().size(), 4u);
  EXPECT_EQ((*file)->tensors()[0].name, "b.floats");  // as written
  EXPECT_EQ((*file)->fingerprint().size(), 16u);
}

TEST_F(SafetensorsTest, EveryTensorStartsAtAMultipleOf64Bytes) {
  WriteExample();
  const auto file = SafetensorsFile::Open(path_, true);
  ASSERT_TRUE(file.ok());
  for (const TensorInfo& tensor : (*file)->tensors())
    EXPECT_EQ(tensor.begin_bytes % 64, 0u) << tensor.name;
}

TEST_F(SafetensorsTest, ReadsPlainFilesWithoutChecksums) {
  ASSERT_TRUE(
      OpenPlain(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", std::string(4, '\0'))
          .ok());
  EXPECT_EQ(SafetensorsFile::Open(path_, /*require_checksums=*/true).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(SafetensorsTest, NamesTheTensorThatIsMissingOrAnother) {
  WriteExample();
  const auto file = *SafetensorsFile::Open(path_, true);
  EXPECT_THAT(file->Floats("nothing", {1}).status().message(), HasSubstr("'nothing' is missing"));
  EXPECT_THAT(file->Floats("b.floats", {3, 2}).status().message(),
              HasSubstr("is F32 [2, 3], but should be F32 [3, 2]"));
  EXPECT_THAT(file->Floats("a.integers", {3}).status().message(), HasSubstr("is I64"));
}

TEST_F(SafetensorsTest, RefusesImpossibleHeaders) {
  const std::string four(4, '\0');
  const auto error = [&](const std::string& header, const std::string& data) {
    return std::string(OpenPlain(header, data).message());
  };
  EXPECT_THAT(error("[]", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(error("{", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[1]}})", four),
              HasSubstr("'x' does not have exactly"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", four),
              HasSubstr("unknown dtype"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four),
              HasSubstr("bad extent"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", four),
              HasSubstr("needs 8 bytes"));
  EXPECT_THAT(
      error(R"({"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", four),
      HasSubstr("impossible shape"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", four),
              HasSubstr("data_offsets"));
  EXPECT_THAT(
      error(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", four),
      HasSubstr("outside the file"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", four + four),
              HasSubstr("tensors end at byte"));
  EXPECT_THAT(error(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", four + four),
              HasSubstr("begins at byte"));
  EXPECT_THAT(error(R"({"__metadata__":{"a":1}})", ""), HasSubstr("'a' is not a string"));
  EXPECT_THAT(error(R"({"__metadata__":[]})", ""), HasSubstr("__metadata__"));
}

TEST_F(SafetensorsTest, RefusesAHeaderLengthBeyondTheFile) {
  uint64_t length = uint64_t{1} << 62;
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof(length));
  ASSERT_TRUE(WriteFileAtomically(path_, bytes + "{}").ok());
  EXPECT_THAT(SafetensorsFile::Open(path_, false).status().message(),
              HasSubstr("header length is 4611686018427387904"));
}

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  WriteExample();
  const std::string bytes = *ReadFile(path_);
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_TRUE(WriteFileAtomically(path_, bytes.substr(0, length)).ok());
    EXPECT_FALSE(OpenAndVerify().ok()) << "cut to " << length << " of " << bytes.size() << " bytes";
  }
}

TEST_F(SafetensorsTest, EveryFlippedBitIsRefused) {
  WriteExample();
  const std::string bytes = *ReadFile(path_);
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      ASSERT_TRUE(WriteFileAtomically(path_, damaged).ok());
      const absl::Status status = OpenAndVerify();
      ASSERT_FALSE(status.ok()) << "byte " << at << ", bit " << bit;
      EXPECT_THAT(status.message(), HasSubstr(path_));
    }
  }
}

TEST_F(SafetensorsTest, ADamagedTensorIsNamed) {
  WriteExample();
  const auto file = *SafetensorsFile::Open(path_, true);
  const TensorInfo* tensor = file->Find("a.integers");
  std::string bytes = *ReadFile(path_);
  bytes[tensor->begin_bytes + 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path_, bytes).ok());
  EXPECT_THAT(OpenAndVerify().message(), HasSubstr("tensor 'a.integers'"));
}

TEST_F(SafetensorsTest, WriterRefusesTwoTensorsOfOneNameAndWrongShapes) {
  const std::vector<float> values(4);
  SafetensorsWriter twice;
  twice.Add("x", {4}, values);
  twice.Add("x", {4}, values);
  EXPECT_THAT(twice.Write(path_).status().message(), HasSubstr("two tensors are named 'x'"));
  SafetensorsWriter wrong;
  wrong.Add("x", {5}, values);
  EXPECT_THAT(wrong.Write(path_).status().message(), HasSubstr("'x' of shape [5]"));
}

}  // namespace
}  // namespace nestrec

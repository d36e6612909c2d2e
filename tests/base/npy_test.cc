#include "base/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class NpyTest : public testing::Test {
 protected:
  NpyTest() : path_(absl::StrCat(testing::TempDir(), "/nestrec_npy_test_", getpid(), ".npy")) {}
  ~NpyTest() override { std::filesystem::remove(path_); }

  std::string ErrorOf(const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomically(path_, bytes).ok());
    const auto matrix = ReadNpy(path_);
    EXPECT_FALSE(matrix.ok());
    return std::string(matrix.status().message());
  }
  // A version 1.0 file with this header dict and data.
  static std::string File(std::string dict, const std::string& data) {
    dict.push_back('\n');
    std::string bytes("\x93NUMPY\x01\x00", 8);
    bytes.push_back(static_cast<char>(dict.size() & 0xff));
    bytes.push_back(static_cast<char>(dict.size() >> 8));
    return bytes + dict + data;
  }
  std::string path_;
};

TEST_F(NpyTest, ReadsWhatItWrites) {
  const Matrix matrix{.rows = 2, .columns = 3, .values = {1, 2, 3, -4, 5.5, 0}};
  ASSERT_TRUE(WriteNpy(path_, matrix).ok());
  const auto read = ReadNpy(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->rows, 2);
  EXPECT_EQ(read->columns, 3);
  EXPECT_EQ(read->values, matrix.values);
}

TEST_F(NpyTest, ReadsNumpysOwnLayout) {
  const std::string data(2 * 4, '\0');
  ASSERT_TRUE(
      WriteFileAtomically(
          path_, File("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   ", data))
          .ok());
  EXPECT_EQ(ReadNpy(path_)->rows, 2);
}

TEST_F(NpyTest, RefusesWithTheReasonAndTheCure) {
  const std::string eight(8, '\0');
  EXPECT_THAT(ErrorOf(""), HasSubstr("bad magic"));
  EXPECT_THAT(ErrorOf("not numpy at all"), HasSubstr("bad magic"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }", eight)),
              HasSubstr("astype('<f4')"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", eight)),
              HasSubstr("C order"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", eight)),
              HasSubstr("1 dimensions"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }", eight)),
              HasSubstr("needs 12 bytes"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 1), }", eight)),
              HasSubstr("bad extent"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': "
                           "(9223372036854775807, 9223372036854775807), }",
                           eight)),
              HasSubstr("too large"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4'}", eight)), HasSubstr("C order"));
}

TEST_F(NpyTest, RefusesNanWithItsPlace) {
  ASSERT_TRUE(WriteNpy(path_, {.rows = 2,
                               .columns = 2,
                               .values = {1, 2, 3, std::numeric_limits<float>::quiet_NaN()}})
                  .ok());
  EXPECT_THAT(ReadNpy(path_).status().message(), HasSubstr("row 1, column 1 is nan"));
}

TEST_F(NpyTest, EveryTruncationIsRefused) {
  ASSERT_TRUE(WriteNpy(path_, {.rows = 2, .columns = 2, .values = {1, 2, 3, 4}}).ok());
  const std::string bytes = *ReadFile(path_);
  for (size_t length = 0; length < bytes.size(); ++length) ErrorOf(bytes.substr(0, length));
}

}  // namespace
}  // namespace nestrec

// Inverted lists in a mapped file.
#include "index/mapped_lists.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr size_t kCodeSize = 12;

// 64-byte aligned, as a mapping is.
struct alignas(64) Line {
  std::byte bytes[64];
};

class Section {
 public:
  explicit Section(const faiss::InvertedLists* lists) {
    const absl::Status status = WriteListSection(lists, [&](const void* data, size_t bytes) {
      const auto* begin = static_cast<const std::byte*>(data);
      bytes_.insert(bytes_.end(), begin, begin + bytes);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok());
  }
  std::vector<std::byte>& bytes() { return bytes_; }
  // Of the bytes as they are now.
  absl::StatusOr<std::unique_ptr<faiss::InvertedLists>> Map(int64_t items) {
    lines_.assign(bytes_.size() / sizeof(Line) + 1, Line{});
    std::memcpy(lines_.data(), bytes_.data(), bytes_.size());
    return MapListSection({lines_.data()->bytes, bytes_.size()}, items, nullptr);
  }
  void Put(size_t at, uint64_t number) { std::memcpy(bytes_.data() + at, &number, sizeof(number)); }

 private:
  std::vector<std::byte> bytes_;
  std::vector<Line> lines_;
};

class MappedListsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kItems = 50;

  // Item i in list i % 7 of 8, so that the last is empty.
  MappedListsTest() : lists_(8, kCodeSize) {
    Random random(1);
    for (int64_t item = 0; item < kItems; ++item) {
      std::vector<uint8_t> code(kCodeSize);
      for (uint8_t& byte : code) byte = static_cast<uint8_t>(random.Index(256));
      lists_.add_entry(static_cast<size_t>(item % 7), item, code.data());
    }
  }

  faiss::ArrayInvertedLists lists_;
};

TEST_F(MappedListsTest, HoldsWhatWasWritten) {
  Section section(&lists_);
  EXPECT_EQ(section.bytes().size(), ListSectionBytes(&lists_));
  const auto mapped = section.Map(kItems);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  ASSERT_EQ((*mapped)->nlist, lists_.nlist);
  ASSERT_EQ((*mapped)->code_size, kCodeSize);
  for (size_t list = 0; list < lists_.nlist; ++list) {
    const size_t size = lists_.list_size(list);
    ASSERT_EQ((*mapped)->list_size(list), size);
    EXPECT_EQ(std::memcmp((*mapped)->get_ids(list), lists_.get_ids(list), 8 * size), 0);
    EXPECT_EQ(std::memcmp((*mapped)->get_codes(list), lists_.get_codes(list), kCodeSize * size), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*mapped)->get_codes(list)) % 64, 0u);
  }
}

TEST_F(MappedListsTest, IsWrittenAgainAsItWas) {
  Section section(&lists_);
  const auto mapped = section.Map(kItems);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(Section(mapped->get()).bytes(), section.bytes());
}

TEST_F(MappedListsTest, SaysThatThereAreNone) {
  Section section(nullptr);
  EXPECT_EQ(section.bytes().size(), ListSectionBytes(nullptr));
  const auto mapped = section.Map(kItems);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(*mapped, nullptr);
  section.bytes().push_back(std::byte{});
  EXPECT_EQ(section.Map(kItems).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(MappedListsTest, RefusesEveryCut) {
  for (size_t cut = 0; cut < ListSectionBytes(&lists_); ++cut) {
    Section section(&lists_);
    section.bytes().resize(cut);
    EXPECT_EQ(section.Map(kItems).status().code(), absl::StatusCode::kDataLoss) << cut;
  }
}

TEST_F(MappedListsTest, RefusesNumbersThatCannotBe) {
  const auto said = [&](size_t at, uint64_t number) {
    Section section(&lists_);
    section.Put(at, number);
    const auto mapped = section.Map(kItems);
    EXPECT_EQ(mapped.status().code(), absl::StatusCode::kDataLoss) << at << " " << number;
    return std::string(mapped.status().message());
  };
  EXPECT_THAT(said(0, uint64_t{1} << 62), HasSubstr("4611686018427387904"));  // lists
  EXPECT_THAT(said(8, uint64_t{1} << 61), HasSubstr("list 0 is cut"));        // bytes of a code
  EXPECT_THAT(said(16 + 3 * 8, uint64_t{1} << 61), HasSubstr("list 3 is cut"));
  EXPECT_THAT(said(16 + 7 * 8, 1), HasSubstr("list 7 is cut"));
  // The ids of the first list begin after the head and eight sizes.
  EXPECT_THAT(said(128, 50), HasSubstr("vector 50 of 50"));
  EXPECT_THAT(said(128, ~uint64_t{0}), HasSubstr("vector -1 of 50"));
  Section section(&lists_);
  EXPECT_THAT(std::string(section.Map(51).status().message()), HasSubstr("50 entries for 51"));
}

}  // namespace
}  // namespace nestrec

#include "base/nested_sizes.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace nestrec {
namespace {

// Of any size, with a sign or without.
bool IsWholeNumber(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  if (!absl::ConsumePrefix(&text, "-")) absl::ConsumePrefix(&text, "+");
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

}  // namespace

absl::StatusOr<NestedSizes> NestedSizes::Create(std::vector<int> sizes) {
  if (sizes.empty()) {
    return absl::InvalidArgumentError("sizes: empty; give at least one width, such as 8,16,32");
  }
  if (sizes.size() > kMaxLevels) {
    return absl::InvalidArgumentError(
        absl::StrCat("sizes: ", sizes.size(), " widths; at most ", kMaxLevels, " are allowed"));
  }
  int previous = 0;
  for (const int size : sizes) {
    if (size < kMinWidth) {
      return absl::InvalidArgumentError(
          absl::StrCat("sizes: ", size, " in ", absl::StrJoin(sizes, ","), " is too narrow; ",
                       "every level needs at least ", kMinWidth,
                       " columns, since each level is normalised on its own"));
    }
    if (size <= previous) {
      return absl::InvalidArgumentError(
          absl::StrCat("sizes: ", absl::StrJoin(sizes, ","), " is not strictly increasing at ",
                       size, "; give widths from narrow to wide, such as 8,16,32"));
    }
    if (size - previous < kMinWidth) {
      return absl::InvalidArgumentError(
          absl::StrCat("sizes: ", size, " makes a level ", size - previous,
                       " column wide; every level needs at least ", kMinWidth,
                       " columns, since each level is normalised on its own"));
    }
    if (size > kMaxDim) {
      return absl::InvalidArgumentError(
          absl::StrCat("sizes: ", size, " is above the limit of ", kMaxDim));
    }
    previous = size;
  }
  return NestedSizes(std::move(sizes));
}

absl::StatusOr<NestedSizes> NestedSizes::Parse(absl::string_view text) {
  std::vector<int> sizes;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int size = 0;
    if (!absl::SimpleAtoi(part, &size)) {
      if (IsWholeNumber(part)) {
        return absl::InvalidArgumentError(absl::StrCat("sizes: ", absl::StripAsciiWhitespace(part),
                                                       " is outside the limits, ", kMinWidth,
                                                       " to ", kMaxDim));
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "sizes: '", part, "' in '", text, "' is not a whole number; write them as 8,16,32"));
    }
    sizes.push_back(size);
  }
  return Create(std::move(sizes));
}

absl::StatusOr<NestedSizes> NestedSizes::Doubling(int max_dim) {
  std::vector<int> sizes;
  for (int size = 8; size < max_dim && size <= kMaxDim / 2; size *= 2) {
    sizes.push_back(size);
  }
  sizes.push_back(max_dim);
  return Create(std::move(sizes));
}

absl::StatusOr<int> NestedSizes::LevelsOf(int dim) const {
  for (int level = 0; level < levels(); ++level) {
    if (sizes_[level] == dim) {
      return level + 1;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dim: ", dim, " is not one of this model's sizes ", ToString()));
}

NestedSizes NestedSizes::Prefix(int levels) const {
  return NestedSizes(std::vector<int>(sizes_.begin(), sizes_.begin() + levels));
}

std::string NestedSizes::ToString() const { return absl::StrJoin(sizes_, ","); }

}  // namespace nestrec

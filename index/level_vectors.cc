#include "index/level_vectors.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "index/float_kernels.h"
#include "index/vector_kernels.h"

namespace nestrec {
namespace {

// Calls use(query's part, the level's values, width) for each of the first levels.
template <class Use>
void ForEachLevel(std::span<const float> query, const LevelVectors& vectors, int levels, Use use) {
  for (int level = 0; level < levels; ++level) {
    const float* const part = query.data() + vectors.sizes.begin(level);
    const int64_t width = vectors.sizes.width(level);
    if (vectors.half()) {
      use(part, vectors.halves[static_cast<size_t>(level)].data(), width);
    } else {
      use(part, vectors.levels[static_cast<size_t>(level)].data(), width);
    }
  }
}

}  // namespace

void LevelVectors::CopyRow(int level, int64_t row, std::span<float> out) const {
  const size_t width = static_cast<size_t>(sizes.width(level));
  const size_t begin = static_cast<size_t>(row) * width;
  if (half()) {
    FloatsOfHalves(halves[static_cast<size_t>(level)].subspan(begin, width), out.data());
  } else {
    const auto values = levels[static_cast<size_t>(level)].subspan(begin, width);
    std::copy(values.begin(), values.end(), out.begin());
  }
}

void LevelVectors::CopyRows(int count, int64_t row, std::span<float> out) const {
  for (int level = 0; level < count; ++level) {
    CopyRow(level, row,
            out.subspan(static_cast<size_t>(sizes.begin(level)),
                        static_cast<size_t>(sizes.width(level))));
  }
}

LevelVectors LevelVectors::Prefix(int count) const {
  LevelVectors prefix{.sizes = sizes.Prefix(count), .rows = rows, .levels = {}};
  if (half()) {
    prefix.halves.assign(halves.begin(), halves.begin() + count);
  } else {
    prefix.levels.assign(levels.begin(), levels.begin() + count);
  }
  return prefix;
}

absl::Status LevelVectors::Validate() const {
  if (rows < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "item vectors have ", rows, " rows; at least 2 are needed, padding and one item"));
  }
  if (items() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        items(), " items; at most ", std::numeric_limits<int32_t>::max(), " can be numbered"));
  }
  if (half() && !levels.empty()) {
    return absl::InvalidArgumentError("item vectors have levels in float32 and in float16");
  }
  const size_t count = half() ? halves.size() : levels.size();
  if (static_cast<int>(count) != sizes.levels()) {
    return absl::InvalidArgumentError(
        absl::StrCat("item vectors have ", count, " levels for ", sizes.levels(), " sizes"));
  }
  for (int level = 0; level < sizes.levels(); ++level) {
    // At most 2^31 rows of 2^16 values: no overflow.
    const uint64_t expected =
        static_cast<uint64_t>(rows) * static_cast<uint64_t>(sizes.width(level));
    const size_t at = static_cast<size_t>(level);
    const size_t values = half() ? halves[at].size() : levels[at].size();
    if (values != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "item vectors of level ", level, " have ", values, half() ? " halves; " : " floats; ",
          rows, " rows of ", sizes.width(level), " need ", expected));
    }
  }
  return absl::OkStatus();
}

void LevelDots(std::span<const float> query, const LevelVectors& vectors, int levels, int64_t begin,
               int64_t count, double* sums) {
  std::fill_n(sums, count, 0.0);
  ForEachLevel(query, vectors, levels, [&](const float* part, const auto* rows, int64_t width) {
    AddCanonicalDots(part, rows + begin * width, width, count, sums);
  });
}

void LevelDotsAt(std::span<const float> query, const LevelVectors& vectors, int levels,
                 int64_t first, std::span<const int32_t> listed, double* sums) {
  const int64_t count = static_cast<int64_t>(listed.size());
  std::fill_n(sums, count, 0.0);
  ForEachLevel(query, vectors, levels, [&](const float* part, const auto* rows, int64_t width) {
    AddCanonicalDotsAt(part, rows + first * width, width, listed.data(), count, sums);
  });
}

}  // namespace nestrec

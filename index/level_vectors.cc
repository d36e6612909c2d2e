#include "index/level_vectors.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace nestrec {

absl::Status LevelVectors::Validate() const {
  if (rows < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "item vectors have ", rows, " rows; at least 2 are needed, padding and one item"));
  }
  if (items() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        items(), " items; at most ", std::numeric_limits<int32_t>::max(), " can be numbered"));
  }
  if (static_cast<int>(levels.size()) != sizes.levels()) {
    return absl::InvalidArgumentError(absl::StrCat("item vectors have ", levels.size(),
                                                   " levels for ", sizes.levels(), " sizes"));
  }
  for (int level = 0; level < sizes.levels(); ++level) {
    // At most 2^31 rows of 2^16 floats: no overflow.
    const uint64_t expected =
        static_cast<uint64_t>(rows) * static_cast<uint64_t>(sizes.width(level));
    if (levels[level].size() != expected) {
      return absl::InvalidArgumentError(
          absl::StrCat("item vectors of level ", level, " have ", levels[level].size(), " floats; ",
                       rows, " rows of ", sizes.width(level), " need ", expected));
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec

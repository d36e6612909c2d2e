#include "index/half_levels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/aligned_array.h"
#include "index/index_file.h"

namespace nestrec {
namespace {

constexpr int kLayout = 1;  // counts up when the payload changes

// One level, wherever it is.
struct Level {
  std::span<const Half> values;  // [rows, width]
  std::shared_ptr<const void> owner;
};

// kInvalidArgument names what has no half. Row 0 is no item: it is rounded as far as that goes.
absl::StatusOr<Level> RoundLevel(const LevelVectors& vectors, int level) {
  const std::span<const float> values = vectors.levels[static_cast<size_t>(level)];
  const size_t width = static_cast<size_t>(vectors.sizes.width(level));
  const auto halves = std::make_shared<AlignedArray<Half>>(values.size());
  for (size_t i = 0; i < width; ++i) {
    halves->data()[i] = HalfOfFloat(std::isnan(values[i]) ? 0.0f : values[i]);
  }
  for (size_t i = width; i < values.size(); ++i) {
    if (!(std::abs(values[i]) <= kLargestHalf)) {
      return absl::InvalidArgumentError(
          absl::StrCat("item ", i / width, " has ", values[i], " in column ",
                       vectors.sizes.begin(level) + static_cast<int>(i % width),
                       "; float16 ends at ", kLargestHalf, ": store these vectors as float32"));
    }
    halves->data()[i] = HalfOfFloat(values[i]);
  }
  return Level{.values = std::as_const(*halves).span(), .owner = halves};
}

std::string KeyOf(const LevelVectors& vectors, int level, absl::string_view source) {
  return absl::StrCat("source=", source, " items=", vectors.items(), " level=", level,
                      " columns=", vectors.sizes.begin(level), "..", vectors.sizes.end(level),
                      " vectors=float16 layout=", kLayout);
}

// Whether these are the level's rows, as far as a spread sample tells.
bool RowsFit(std::span<const Half> halves, const LevelVectors& vectors, int level) {
  constexpr int64_t kSample = 256;
  const int64_t items = vectors.items();
  const int64_t sampled = std::min(kSample, items);
  const size_t width = static_cast<size_t>(vectors.sizes.width(level));
  for (int64_t i = 0; i < sampled; ++i) {
    const int64_t row = 1 + i * items / sampled;
    const std::span<const float> values = vectors.row(level, row);
    for (size_t c = 0; c < width; ++c) {
      if (halves[static_cast<size_t>(row) * width + c] != HalfOfFloat(values[c])) return false;
    }
  }
  return true;
}

absl::StatusOr<Level> ReadLevel(const LevelVectors& vectors, int level, const std::string& path,
                                absl::string_view source) {
  NESTREC_ASSIGN_OR_RETURN(const IndexFile file,
                           OpenIndexFile(path, KeyOf(vectors, level, source)));
  const size_t values = vectors.levels[static_cast<size_t>(level)].size();
  // Payloads begin at a multiple of 64 bytes of a mapping, which begins at a page.
  const std::span<const Half> halves = {reinterpret_cast<const Half*>(file.payload.data()),
                                        file.payload.size() / sizeof(Half)};
  if (file.payload.size() != values * sizeof(Half) || !RowsFit(halves, vectors, level)) {
    return absl::DataLossError(absl::StrCat(path, " holds other vectors than it says"));
  }
  return Level{.values = halves, .owner = file.mapping};
}

absl::Status WriteLevel(const Level& halves, const LevelVectors& vectors, int level,
                        const std::string& path, absl::string_view source) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<IndexFileWriter> file,
                           IndexFileWriter::Create(path, KeyOf(vectors, level, source)));
  NESTREC_RETURN_IF_ERROR(file->Write(halves.values.data(), halves.values.size_bytes()));
  return file->Commit();
}

// What `of_level` gives for each of them.
template <class OfLevel>
absl::StatusOr<HalfLevels> AllLevels(const LevelVectors& vectors, OfLevel of_level) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  if (vectors.half()) return absl::InvalidArgumentError("item vectors are float16 already");
  return Guard("rounding item vectors", [&]() -> absl::StatusOr<HalfLevels> {
    HalfLevels halves{.vectors = {.sizes = vectors.sizes, .rows = vectors.rows, .levels = {}},
                      .owner = nullptr,
                      .load = absl::OkStatus(),
                      .save = absl::OkStatus()};
    const auto owners = std::make_shared<std::vector<std::shared_ptr<const void>>>();
    for (int level = 0; level < vectors.sizes.levels(); ++level) {
      NESTREC_ASSIGN_OR_RETURN(Level of_this, of_level(level, halves));
      halves.vectors.halves.push_back(of_this.values);
      owners->push_back(std::move(of_this.owner));
    }
    halves.owner = owners;
    return halves;
  });
}

}  // namespace

absl::StatusOr<HalfLevels> RoundLevels(const LevelVectors& vectors) {
  return AllLevels(vectors, [&](int level, HalfLevels&) { return RoundLevel(vectors, level); });
}

absl::StatusOr<HalfLevels> LoadOrRoundLevels(const LevelVectors& vectors, const std::string& folder,
                                             absl::string_view source) {
  return AllLevels(vectors, [&](int level, HalfLevels& halves) -> absl::StatusOr<Level> {
    const std::string path = absl::StrCat(folder, "/level", level, "-float16.index");
    absl::StatusOr<Level> read = ReadLevel(vectors, level, path, source);
    halves.load.Update(read.status());
    if (read.ok()) return read;
    NESTREC_ASSIGN_OR_RETURN(Level made, RoundLevel(vectors, level));
    const absl::Status written = WriteLevel(made, vectors, level, path, source);
    halves.save.Update(written);
    if (!written.ok()) return made;
    // In the mapping they are shared, and the system may take their memory back.
    read = ReadLevel(vectors, level, path, source);
    return read.ok() ? std::move(read) : std::move(made);
  });
}

}  // namespace nestrec

#include "index/nested_store.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/index_file.h"

namespace nestrec::nested_store {
namespace {

constexpr int kLayout = 1;  // counts up when the payload or the meaning of codes changes
constexpr size_t kAlignment = 64;
constexpr uint32_t kHigh = 1;
constexpr uint32_t kLow = 2;

struct Header {
  uint64_t items;
  uint32_t dim;
  uint32_t groups;
  uint32_t has_matrix;
  uint32_t zero;
  double error;
  double largest_norm;
};
static_assert(sizeof(Header) == 40);

struct GroupRecord {
  int32_t begin, end;
  uint32_t planes;
  uint32_t zero;
  float norm_unit, error4_unit, error8_unit, value4_norm;
  double mean_norm, mean_error4, mean_error8;
};
static_assert(sizeof(GroupRecord) == 56);

class PayloadWriter {
 public:
  explicit PayloadWriter(IndexFileWriter& file) : file_(file) {}

  absl::Status Write(const void* data, size_t size) {
    written_ += size;
    return file_.Write(data, size);
  }
  template <typename T>
  absl::Status WriteArray(std::span<const T> values) {
    constexpr char kZeros[kAlignment] = {};
    NESTREC_RETURN_IF_ERROR(Write(kZeros, (kAlignment - written_ % kAlignment) % kAlignment));
    return Write(values.data(), values.size_bytes());
  }

 private:
  IndexFileWriter& file_;
  size_t written_ = 0;
};

class PayloadReader {
 public:
  explicit PayloadReader(std::span<const std::byte> payload) : payload_(payload) {}

  template <typename T>
  bool Read(T& value) {
    if (payload_.size() - at_ < sizeof(T)) return false;
    std::memcpy(&value, payload_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return true;
  }
  // `size` values that stay where they are.
  template <typename T>
  bool ReadArray(uint64_t size, std::span<const T>& values) {
    const size_t padding = (kAlignment - at_ % kAlignment) % kAlignment;
    if (payload_.size() - at_ < padding) return false;
    const size_t left = payload_.size() - at_ - padding;
    if (size > left / sizeof(T)) return false;
    // Payloads begin at a multiple of 64 bytes of a mapping, which begins at a page.
    values = {reinterpret_cast<const T*>(payload_.data() + at_ + padding), size};
    at_ += padding + size * sizeof(T);
    return true;
  }
  bool at_end() const { return at_ == payload_.size(); }

 private:
  std::span<const std::byte> payload_;
  size_t at_ = 0;
};

bool IsMeasure(double value) { return std::isfinite(value) && value >= 0; }

bool ReadGroups(PayloadReader& reader, uint32_t count, int64_t dim,
                std::vector<NestedCodes::Group>& groups) {
  int begin = 0;
  for (uint32_t g = 0; g < count; ++g) {
    GroupRecord record;
    // Groups follow each other, each of a column at least, so there are no more of them than dim.
    if (!reader.Read(record) || record.begin != begin || record.end <= begin || record.end > dim ||
        record.planes > (kHigh | kLow) || record.planes == kLow) {
      return false;
    }
    for (const double value :
         {static_cast<double>(record.norm_unit), static_cast<double>(record.error4_unit),
          static_cast<double>(record.error8_unit), static_cast<double>(record.value4_norm),
          record.mean_norm, record.mean_error4, record.mean_error8}) {
      if (!IsMeasure(value)) return false;
    }
    NestedCodes::Group& group = groups.emplace_back();
    group.begin = record.begin;
    group.end = record.end;
    group.row_bytes = NestedCodes::RowBytes(record.end - record.begin);
    group.norm_unit = record.norm_unit;
    group.error4_unit = record.error4_unit;
    group.error8_unit = record.error8_unit;
    group.value4_norm = record.value4_norm;
    group.mean_norm = record.mean_norm;
    group.mean_error4 = record.mean_error4;
    group.mean_error8 = record.mean_error8;
    group.has_high = (record.planes & kHigh) != 0;
    group.has_low = (record.planes & kLow) != 0;
    begin = record.end;
  }
  return begin == dim;
}

template <typename T>
bool AllFinite(std::span<const T> values) {
  return std::all_of(values.begin(), values.end(), [](T value) { return std::isfinite(value); });
}

bool ReadParts(std::span<const std::byte> payload, const LevelVectors& vectors,
               NestedCodes::Parts& parts) {
  PayloadReader reader(payload);
  const uint64_t items = static_cast<uint64_t>(vectors.items());
  const uint64_t dim = static_cast<uint64_t>(vectors.sizes.max_dim());
  Header header;
  if (!reader.Read(header) || header.items != items || header.dim != dim || header.groups == 0 ||
      header.has_matrix > 1 || !IsMeasure(header.error) || !(header.largest_norm >= 0)) {
    return false;
  }
  if (!ReadGroups(reader, header.groups, static_cast<int64_t>(dim), parts.groups)) return false;
  parts.largest_norm = header.largest_norm;
  parts.bound_bytes = NestedCodes::BoundBytes(header.groups);
  std::span<const double> mean;
  std::span<const float> matrix;
  std::span<const float> steps;
  // At most 2^16 columns and 2^31 items: no product leaves 64 bits.
  if (!reader.ReadArray(dim, mean) ||
      (header.has_matrix == 1 && !reader.ReadArray(dim * dim, matrix)) ||
      !reader.ReadArray(dim, steps) || !reader.ReadArray(items, parts.scales) ||
      !reader.ReadArray(items * static_cast<uint64_t>(parts.bound_bytes), parts.bounds)) {
    return false;
  }
  if (!AllFinite(mean) || !AllFinite(matrix) || !AllFinite(steps)) return false;
  parts.transform = {.dim = static_cast<int64_t>(dim),
                     .mean = {mean.begin(), mean.end()},
                     .decode = {matrix.begin(), matrix.end()},
                     .encode = {},
                     .error = header.error};
  for (NestedCodes::Group& group : parts.groups) {
    group.steps.assign(steps.begin() + group.begin, steps.begin() + group.end);
    const uint64_t bytes = items * static_cast<uint64_t>(group.row_bytes);
    if ((group.has_high && !reader.ReadArray(bytes, group.high)) ||
        (group.has_low && !reader.ReadArray(bytes, group.low))) {
      return false;
    }
  }
  return reader.at_end();
}

// Whether the scales are the norms of these vectors, as far as a spread sample tells.
bool ScalesFit(const NestedCodes::Parts& parts, const LevelVectors& vectors) {
  constexpr int64_t kSample = 1024;
  const int64_t items = vectors.items();
  const int64_t sampled = std::min(kSample, items);
  std::vector<float> values(static_cast<size_t>(vectors.sizes.max_dim()));
  for (int64_t i = 0; i < sampled; ++i) {
    const int64_t item = i * items / sampled;
    vectors.CopyRows(vectors.sizes.levels(), item + 1, values);
    double square = 0;
    for (const float value : values) {
      square += static_cast<double>(value) * static_cast<double>(value);
    }
    const double scale = static_cast<double>(parts.scales[static_cast<size_t>(item)]);
    const double norm = std::sqrt(square);
    constexpr double kTiny = 1e-40;  // where floats get coarse
    if (std::isnan(scale)) {         // too large a norm for codes
      if (norm < static_cast<double>(std::numeric_limits<float>::max()) / 131072) return false;
    } else if (norm > scale + kTiny || scale > norm * (1 + 1e-5) + kTiny) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string KeyOf(const LevelVectors& vectors, absl::string_view source) {
  return absl::StrCat("source=", source, " items=", vectors.items(),
                      " dim=", vectors.sizes.max_dim(), " index=nested layout=", kLayout,
                      vectors.half() ? " vectors=float16" : "");
}

absl::Status Write(const NestedCodes& codes, const std::string& path, absl::string_view key) {
  const NestedCodes::Parts& parts = codes.parts();
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<IndexFileWriter> file,
                           IndexFileWriter::Create(path, key));
  PayloadWriter writer(*file);
  const Header header = {.items = static_cast<uint64_t>(codes.items()),
                         .dim = static_cast<uint32_t>(codes.dim()),
                         .groups = static_cast<uint32_t>(parts.groups.size()),
                         .has_matrix = parts.transform.decode.empty() ? 0u : 1u,
                         .zero = 0,
                         .error = parts.transform.error,
                         .largest_norm = parts.largest_norm};
  NESTREC_RETURN_IF_ERROR(writer.Write(&header, sizeof(header)));
  std::vector<float> steps;
  for (const NestedCodes::Group& group : parts.groups) {
    const GroupRecord record = {
        .begin = group.begin,
        .end = group.end,
        .planes = (group.has_high ? kHigh : 0) | (group.has_low ? kLow : 0),
        .zero = 0,
        .norm_unit = group.norm_unit,
        .error4_unit = group.error4_unit,
        .error8_unit = group.error8_unit,
        .value4_norm = group.value4_norm,
        .mean_norm = group.mean_norm,
        .mean_error4 = group.mean_error4,
        .mean_error8 = group.mean_error8,
    };
    NESTREC_RETURN_IF_ERROR(writer.Write(&record, sizeof(record)));
    steps.insert(steps.end(), group.steps.begin(), group.steps.end());
  }
  NESTREC_RETURN_IF_ERROR(writer.WriteArray(std::span<const double>(parts.transform.mean)));
  if (header.has_matrix == 1) {
    NESTREC_RETURN_IF_ERROR(writer.WriteArray(std::span<const float>(parts.transform.decode)));
  }
  NESTREC_RETURN_IF_ERROR(writer.WriteArray(std::span<const float>(steps)));
  NESTREC_RETURN_IF_ERROR(writer.WriteArray(parts.scales));
  NESTREC_RETURN_IF_ERROR(writer.WriteArray(parts.bounds));
  for (const NestedCodes::Group& group : parts.groups) {
    if (group.has_high) NESTREC_RETURN_IF_ERROR(writer.WriteArray(group.high));
    if (group.has_low) NESTREC_RETURN_IF_ERROR(writer.WriteArray(group.low));
  }
  return file->Commit();
}

absl::StatusOr<std::unique_ptr<const NestedCodes>> Read(const std::string& path,
                                                        absl::string_view key,
                                                        const LevelVectors& vectors) {
  NESTREC_ASSIGN_OR_RETURN(const IndexFile file, OpenIndexFile(path, key));
  return Guard(absl::StrCat("reading ", path),
               [&]() -> absl::StatusOr<std::unique_ptr<const NestedCodes>> {
                 NestedCodes::Parts parts;
                 if (!ReadParts(file.payload, vectors, parts) || !ScalesFit(parts, vectors)) {
                   return absl::DataLossError(
                       absl::StrCat(path, " holds an index of other vectors than it says"));
                 }
                 parts.owner = file.mapping;
                 return NestedCodes::FromParts(vectors, std::move(parts));
               });
}

}  // namespace nestrec::nested_store

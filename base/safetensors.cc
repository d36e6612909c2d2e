#include "base/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace nestrec {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = uint64_t{100} << 20;
constexpr uint64_t kAlignmentBytes = 64;
constexpr size_t kMaxRank = 8;
constexpr absl::string_view kPaddingPrefix = "padding.";
constexpr absl::string_view kChecksumsKey = "tensor_xxh3_64";
// Every header that nestrec writes begins with this and 16 hex digits: the XXH3-64 of the length
// and the header with these digits as zeros.
constexpr absl::string_view kHeaderStart = R"({"__metadata__":{"header_xxh3_64":")";
constexpr size_t kDigestDigits = 16;

struct DTypeEntry {
  DType dtype;
  absl::string_view name;
  size_t size;
};
constexpr DTypeEntry kDTypes[] = {{DType::kF32, "F32", 4},
                                  {DType::kI64, "I64", 8},
                                  {DType::kI32, "I32", 4},
                                  {DType::kU8, "U8", 1}};

std::string Digest(uint64_t hash) { return absl::StrFormat("%016x", hash); }

std::string TensorDigest(std::span<const std::byte> bytes) {
  return Digest(XXH3_64bits(bytes.data(), bytes.size()));
}

std::string HeaderDigest(absl::string_view header) {
  const uint64_t length = header.size();
  const std::string zeros(kDigestDigits, '0');
  const absl::string_view tail = header.substr(kHeaderStart.size() + kDigestDigits);
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  XXH3_64bits_update(&state, &length, sizeof(length));
  XXH3_64bits_update(&state, kHeaderStart.data(), kHeaderStart.size());
  XXH3_64bits_update(&state, zeros.data(), zeros.size());
  XXH3_64bits_update(&state, tail.data(), tail.size());
  return Digest(XXH3_64bits_digest(&state));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// The number of elements, or nothing on overflow or a negative extent.
std::optional<int64_t> CheckedElements(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(elements, extent, &elements)) return std::nullopt;
  }
  return elements;
}

absl::Status Damaged(const std::string& path, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(path, ": ", what, "; the file is damaged or not a safetensors file"));
}

std::optional<uint64_t> Unsigned(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

// Reads one header entry; `data_begin` is where offsets count from.
absl::StatusOr<TensorInfo> ParseTensor(const std::string& path, const std::string& name,
                                       const Json& entry, uint64_t data_begin, uint64_t data_size) {
  const auto damaged = [&](absl::string_view what) {
    return Damaged(path, absl::StrCat("tensor '", name, "' ", what));
  };
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") ||
      !entry.contains("shape") || !entry.contains("data_offsets")) {
    return damaged("does not have exactly dtype, shape and data_offsets");
  }
  TensorInfo tensor;
  tensor.name = name;
  const Json& dtype = entry["dtype"];
  const auto* known =
      std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const DTypeEntry& e) {
        return dtype.is_string() && dtype.get_ref<const std::string&>() == e.name;
      });
  if (known == std::end(kDTypes))
    return damaged(absl::StrCat("has the unknown dtype ",
                                dtype.dump(-1, ' ', true, Json::error_handler_t::replace)));
  tensor.dtype = known->dtype;
  const Json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kMaxRank) return damaged("has a bad shape");
  for (const Json& extent : shape) {
    const auto value = Unsigned(extent);
    if (!value || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return damaged("has a bad extent in its shape");
    }
    tensor.shape.push_back(static_cast<int64_t>(*value));
  }
  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) return damaged("has bad data_offsets");
  const auto begin = Unsigned(offsets[0]);
  const auto end = Unsigned(offsets[1]);
  if (!begin || !end || *begin > *end || *end > data_size) {
    return damaged(absl::StrCat("has data_offsets outside the file's ", data_size,
                                " bytes of data (cut off?)"));
  }
  const auto elements = CheckedElements(tensor.shape);
  uint64_t expected = 0;
  if (!elements ||
      __builtin_mul_overflow(static_cast<uint64_t>(*elements), known->size, &expected)) {
    return damaged(absl::StrCat("has the impossible shape ", ShapeText(tensor.shape)));
  }
  if (expected != *end - *begin) {
    return damaged(absl::StrCat("of shape ", ShapeText(tensor.shape), " needs ", expected,
                                " bytes, but its offsets give ", *end - *begin));
  }
  tensor.begin_bytes = data_begin + *begin;
  tensor.size_bytes = *end - *begin;
  return tensor;
}

}  // namespace

absl::string_view DTypeName(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].name; }
size_t DTypeSize(DType dtype) { return kDTypes[static_cast<size_t>(dtype)].size; }

int64_t TensorInfo::elements() const { return static_cast<int64_t>(size_bytes / DTypeSize(dtype)); }

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path, bool require_checksums) {
  std::shared_ptr<SafetensorsFile> result(new SafetensorsFile());
  NESTREC_ASSIGN_OR_RETURN(result->file_, MappedFile::Open(path));
  const uint64_t size = result->file_->size();
  if (size < kLengthBytes) {
    return Damaged(
        path, absl::StrCat("the file has ", size, " bytes, less than the 8 of the header length"));
  }
  uint64_t header_size = 0;
  std::memcpy(&header_size, result->file_->data(), sizeof(header_size));
  if (header_size > kMaxHeaderBytes || header_size > size - kLengthBytes) {
    return Damaged(path, absl::StrCat("the header length is ", header_size, ", but the file has ",
                                      size - kLengthBytes, " bytes after it and the limit is ",
                                      kMaxHeaderBytes));
  }
  const absl::string_view header(
      reinterpret_cast<const char*>(result->file_->data()) + kLengthBytes, header_size);
  NESTREC_RETURN_IF_ERROR(
      result->ParseHeader(header, kLengthBytes + header_size, require_checksums));
  return std::shared_ptr<const SafetensorsFile>(std::move(result));
}

absl::Status SafetensorsFile::ParseHeader(absl::string_view header, uint64_t data_begin,
                                          bool require_checksums) {
  if (require_checksums) {
    if (header.size() < kHeaderStart.size() + kDigestDigits ||
        header.substr(0, kHeaderStart.size()) != kHeaderStart) {
      return absl::FailedPreconditionError(
          absl::StrCat(path(),
                       ": the header does not begin with nestrec's checksum; the file is damaged "
                       "there or was not "
                       "written by nestrec"));
    }
    fingerprint_ = HeaderDigest(header);
    const absl::string_view stored = header.substr(kHeaderStart.size(), kDigestDigits);
    if (stored != fingerprint_) {
      return Damaged(path(), absl::StrCat("the header's checksum is ", fingerprint_,
                                          " but it should be ", absl::CHexEscape(stored)));
    }
  }
  const Json json = Json::parse(header.begin(), header.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(path(), "the header is not a JSON object");
  const uint64_t data_size = file_->size() - data_begin;
  std::vector<TensorInfo> all;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return Damaged(path(), "__metadata__ is not a JSON object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string())
          return Damaged(path(), absl::StrCat("metadata '", key, "' is not a string"));
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    NESTREC_ASSIGN_OR_RETURN(TensorInfo tensor,
                             ParseTensor(path(), name, entry, data_begin, data_size));
    all.push_back(std::move(tensor));
  }
  std::sort(all.begin(), all.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin_bytes, a.size_bytes) < std::pair(b.begin_bytes, b.size_bytes);
  });
  uint64_t expected_begin = data_begin;
  for (TensorInfo& tensor : all) {
    if (tensor.begin_bytes != expected_begin) {
      return Damaged(path(),
                     absl::StrCat("tensor '", tensor.name, "' begins at byte ", tensor.begin_bytes,
                                  ", but the one before it ends at ", expected_begin));
    }
    expected_begin += tensor.size_bytes;
    if (absl::StartsWith(tensor.name, kPaddingPrefix)) {
      padding_.push_back(std::move(tensor));
    } else {
      by_name_[tensor.name] = tensors_.size();
      tensors_.push_back(std::move(tensor));
    }
  }
  if (expected_begin != file_->size()) {
    return Damaged(path(), absl::StrCat("the tensors end at byte ", expected_begin,
                                        ", but the file at ", file_->size()));
  }
  if (!require_checksums) return absl::OkStatus();
  const Json checksums =
      Json::parse(metadata_[std::string(kChecksumsKey)], nullptr, /*allow_exceptions=*/false);
  if (!checksums.is_object())
    return Damaged(path(), absl::StrCat("metadata '", kChecksumsKey, "' is not a JSON object"));
  for (const auto& [name, value] : checksums.items()) {
    if (value.is_string()) checksums_[name] = value.get<std::string>();
  }
  for (const TensorInfo& tensor : tensors_) {
    if (!checksums_.contains(tensor.name)) {
      return Damaged(path(), absl::StrCat("tensor '", tensor.name, "' has no checksum"));
    }
  }
  metadata_.erase(std::string(kChecksumsKey));
  metadata_.erase("header_xxh3_64");
  return absl::OkStatus();
}

const TensorInfo* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_->bytes().subspan(tensor.begin_bytes, tensor.size_bytes);
}

absl::StatusOr<const TensorInfo*> SafetensorsFile::Expect(absl::string_view name, DType dtype,
                                                          const std::vector<int64_t>& shape) const {
  const TensorInfo* tensor = Find(name);
  if (tensor == nullptr)
    return absl::DataLossError(absl::StrCat(path(), ": tensor '", name, "' is missing"));
  if (tensor->dtype != dtype || tensor->shape != shape) {
    return absl::DataLossError(absl::StrCat(
        path(), ": tensor '", name, "' is ", DTypeName(tensor->dtype), " ",
        ShapeText(tensor->shape), ", but should be ", DTypeName(dtype), " ", ShapeText(shape)));
  }
  if (tensor->begin_bytes % DTypeSize(dtype) != 0) {
    return absl::DataLossError(absl::StrCat(path(), ": tensor '", name, "' begins at byte ",
                                            tensor->begin_bytes, ", which is not aligned"));
  }
  return tensor;
}

absl::StatusOr<std::span<const float>> SafetensorsFile::Floats(absl::string_view name,
                                                               std::vector<int64_t> shape) const {
  NESTREC_ASSIGN_OR_RETURN(const TensorInfo* tensor, Expect(name, DType::kF32, shape));
  return std::span(reinterpret_cast<const float*>(bytes(*tensor).data()),
                   static_cast<size_t>(tensor->elements()));
}

absl::StatusOr<std::span<const int64_t>> SafetensorsFile::Int64s(absl::string_view name,
                                                                 std::vector<int64_t> shape) const {
  NESTREC_ASSIGN_OR_RETURN(const TensorInfo* tensor, Expect(name, DType::kI64, shape));
  return std::span(reinterpret_cast<const int64_t*>(bytes(*tensor).data()),
                   static_cast<size_t>(tensor->elements()));
}

absl::StatusOr<std::span<const int32_t>> SafetensorsFile::Int32s(absl::string_view name,
                                                                 std::vector<int64_t> shape) const {
  NESTREC_ASSIGN_OR_RETURN(const TensorInfo* tensor, Expect(name, DType::kI32, shape));
  return std::span(reinterpret_cast<const int32_t*>(bytes(*tensor).data()),
                   static_cast<size_t>(tensor->elements()));
}

absl::StatusOr<absl::string_view> SafetensorsFile::Text(absl::string_view name) const {
  const TensorInfo* tensor = Find(name);
  if (tensor == nullptr)
    return absl::DataLossError(absl::StrCat(path(), ": tensor '", name, "' is missing"));
  if (tensor->dtype != DType::kU8 || tensor->shape.size() != 1) {
    return absl::DataLossError(
        absl::StrCat(path(), ": tensor '", name, "' is not text (U8, one dimension)"));
  }
  return absl::string_view(reinterpret_cast<const char*>(bytes(*tensor).data()),
                           tensor->size_bytes);
}

absl::Status SafetensorsFile::Verify(const TensorInfo& tensor) const {
  const auto stored = checksums_.find(tensor.name);
  if (stored == checksums_.end()) return absl::OkStatus();
  const std::string digest = TensorDigest(bytes(tensor));
  if (digest != stored->second) {
    return Damaged(
        path(), absl::StrCat("tensor '", tensor.name, "' (bytes ", tensor.begin_bytes, " to ",
                             tensor.begin_bytes + tensor.size_bytes, ") has the checksum ", digest,
                             " but should have ", stored->second));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::VerifyPadding() const {
  for (const TensorInfo& tensor : padding_) {
    const auto span = bytes(tensor);
    if (std::any_of(span.begin(), span.end(), [](std::byte b) { return b != std::byte{0}; })) {
      return Damaged(
          path(), absl::StrCat("'", tensor.name, "' at byte ", tensor.begin_bytes, " is not zero"));
    }
  }
  return absl::OkStatus();
}

void SafetensorsWriter::Add(std::string name, std::vector<int64_t> shape,
                            std::span<const float> data) {
  entries_.push_back({std::move(name), DType::kF32, std::move(shape), std::as_bytes(data)});
}
void SafetensorsWriter::Add(std::string name, std::vector<int64_t> shape,
                            std::span<const int64_t> data) {
  entries_.push_back({std::move(name), DType::kI64, std::move(shape), std::as_bytes(data)});
}
void SafetensorsWriter::Add(std::string name, std::vector<int64_t> shape,
                            std::span<const int32_t> data) {
  entries_.push_back({std::move(name), DType::kI32, std::move(shape), std::as_bytes(data)});
}
void SafetensorsWriter::AddText(std::string name, absl::string_view text) {
  entries_.push_back({std::move(name),
                      DType::kU8,
                      {static_cast<int64_t>(text.size())},
                      std::as_bytes(std::span(text.data(), text.size()))});
}

namespace {
template <typename Container>
const Container& Keep(Container data, std::vector<std::shared_ptr<const void>>& owned) {
  auto holder = std::make_shared<const Container>(std::move(data));
  const Container& kept = *holder;
  owned.push_back(std::move(holder));
  return kept;
}
}  // namespace

std::span<const float> SafetensorsWriter::Own(std::vector<float> data) {
  return Keep(std::move(data), owned_);
}
std::span<const int64_t> SafetensorsWriter::Own(std::vector<int64_t> data) {
  return Keep(std::move(data), owned_);
}
absl::string_view SafetensorsWriter::Own(std::string data) { return Keep(std::move(data), owned_); }

absl::StatusOr<std::string> SafetensorsWriter::Write(const std::string& path) const {
  nlohmann::ordered_json header;
  header["__metadata__"] = nullptr;  // the first key; filled below
  nlohmann::ordered_json metadata;
  metadata["header_xxh3_64"] = std::string(kDigestDigits, '0');
  for (const auto& [key, value] : metadata_) metadata[key] = value;
  nlohmann::ordered_json checksums = nlohmann::ordered_json::object();
  uint64_t offset = 0;
  int paddings = 0;
  std::set<absl::string_view> names;
  const auto add = [&](const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                       uint64_t size) {
    header[name] = {{"dtype", std::string(DTypeName(dtype))},
                    {"shape", shape},
                    {"data_offsets", {offset, offset + size}}};
    offset += size;
  };
  for (const Entry& entry : entries_) {
    const auto elements = CheckedElements(entry.shape);
    if (!elements ||
        static_cast<uint64_t>(*elements) * DTypeSize(entry.dtype) != entry.data.size()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", entry.name, "' of shape ",
                                                     ShapeText(entry.shape), " has ",
                                                     entry.data.size(), " bytes of data"));
    }
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("two tensors are named '", entry.name, "'"));
    }
    checksums[entry.name] = TensorDigest(entry.data);
    add(entry.name, entry.dtype, entry.shape, entry.data.size());
    const uint64_t gap = (kAlignmentBytes - offset % kAlignmentBytes) % kAlignmentBytes;
    if (gap > 0)
      add(absl::StrCat(kPaddingPrefix, paddings++), DType::kU8, {static_cast<int64_t>(gap)}, gap);
  }
  metadata[std::string(kChecksumsKey)] = checksums.dump();
  header["__metadata__"] = std::move(metadata);
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  const uint64_t unpadded = kLengthBytes + text.size();
  text.append((kAlignmentBytes - unpadded % kAlignmentBytes) % kAlignmentBytes, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the header would have ", text.size(),
                                                   " bytes; the limit is ", kMaxHeaderBytes));
  }
  const std::string digest = HeaderDigest(text);
  text.replace(kHeaderStart.size(), kDigestDigits, digest);

  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(path));
  const uint64_t length = text.size();
  NESTREC_RETURN_IF_ERROR(writer->Write(&length, sizeof(length)));
  NESTREC_RETURN_IF_ERROR(writer->Write(text));
  uint64_t written = 0;
  constexpr char kZeros[kAlignmentBytes] = {};
  for (const Entry& entry : entries_) {
    NESTREC_RETURN_IF_ERROR(writer->Write(entry.data.data(), entry.data.size()));
    written += entry.data.size();
    const uint64_t gap = (kAlignmentBytes - written % kAlignmentBytes) % kAlignmentBytes;
    NESTREC_RETURN_IF_ERROR(writer->Write(kZeros, gap));
    written += gap;
  }
  NESTREC_RETURN_IF_ERROR(writer->Commit());
  return digest;
}

}  // namespace nestrec

// safetensors files (https://github.com/huggingface/safetensors, format description in its README):
// an 8-byte little-endian header length, a JSON header, then the tensors' bytes without holes.
//
// nestrec adds, inside the format: XXH3-64 checksums of the header and of every tensor in the
// metadata, and small U8 tensors named "padding.N" so that every tensor starts at a multiple of 64
// bytes in the file. docs/checkpoint_format.md has the bytes.
//
// Reading maps the file: opening reads the header alone; a tensor's pages are read when it is used
// or verified. Nothing is trusted: sizes are checked before use, without overflow.
//
// Thread safety: an open file is immutable, all its methods may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file.h"

namespace nestrec {

enum class DType { kF32, kI64, kI32, kU8 };
// "F32", "I64", ...
absl::string_view DTypeName(DType dtype);
// Bytes per element.
size_t DTypeSize(DType dtype);

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t begin_bytes;  // from the start of the file
  uint64_t size_bytes;
  int64_t elements() const;
};

class SafetensorsFile {
 public:
  // kDataLoss, naming the place in the file, for anything that is not a complete, consistent file;
  // with `require_checksums`, also for a header that does not match its checksum and
  // kFailedPrecondition for a file without nestrec's checksums. Errors of base/file.h besides.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path,
                                                                     bool require_checksums);

  const std::string& path() const { return file_->path(); }
  uint64_t size_bytes() const { return file_->size(); }
  // Without the checksums.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // In the order of their bytes, padding left out.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  // nullptr when there is none.
  const TensorInfo* Find(absl::string_view name) const;

  // Views on the mapped bytes, valid as long as this object. kDataLoss, naming the tensor, when it
  // is missing, or has another dtype or shape.
  absl::StatusOr<std::span<const float>> Floats(absl::string_view name,
                                                std::vector<int64_t> shape) const;
  absl::StatusOr<std::span<const int64_t>> Int64s(absl::string_view name,
                                                  std::vector<int64_t> shape) const;
  absl::StatusOr<std::span<const int32_t>> Int32s(absl::string_view name,
                                                  std::vector<int64_t> shape) const;
  // A one-dimensional U8 tensor of any length.
  absl::StatusOr<absl::string_view> Text(absl::string_view name) const;
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;

  // Reads the whole tensor and compares its checksum: kDataLoss, naming it, when it differs.
  // A file without checksums verifies.
  absl::Status Verify(const TensorInfo& tensor) const;
  // kDataLoss when the padding between tensors is not zero.
  absl::Status VerifyPadding() const;
  // Identifies the content (header checksum, which covers the tensors' checksums), 16 hex digits;
  // empty for a file without checksums.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  SafetensorsFile() = default;
  absl::Status ParseHeader(absl::string_view header, uint64_t data_begin, bool require_checksums);
  absl::StatusOr<const TensorInfo*> Expect(absl::string_view name, DType dtype,
                                           const std::vector<int64_t>& shape) const;

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorInfo> tensors_;
  std::vector<TensorInfo> padding_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::string, std::less<>> checksums_;
  std::string fingerprint_;
};

// Collects tensors and writes them in the order in which they were added. The data is not copied:
// it must stay valid until Write returns, unless given to Own first.
class SafetensorsWriter {
 public:
  void Add(std::string name, std::vector<int64_t> shape, std::span<const float> data);
  void Add(std::string name, std::vector<int64_t> shape, std::span<const int64_t> data);
  void Add(std::string name, std::vector<int64_t> shape, std::span<const int32_t> data);
  // Text as a one-dimensional U8 tensor.
  void AddText(std::string name, absl::string_view text);
  // Keeps `data` alive as long as the writer and returns a view on it.
  std::span<const float> Own(std::vector<float> data);
  std::span<const int64_t> Own(std::vector<int64_t> data);
  absl::string_view Own(std::string data);

  void SetMetadata(std::string key, std::string value) {
    metadata_[std::move(key)] = std::move(value);
  }

  // Atomic (AtomicFileWriter). Returns the fingerprint of what was written. kInvalidArgument for
  // two tensors of one name or data that does not fill its shape.
  absl::StatusOr<std::string> Write(const std::string& path) const;

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    std::span<const std::byte> data;
  };
  std::vector<Entry> entries_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::shared_ptr<const void>> owned_;
};

}  // namespace nestrec

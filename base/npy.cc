#include "base/npy.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr int64_t kMaxElements = int64_t{1} << 40;

// The text after `'key':` in the header's Python dict literal, or nothing.
std::optional<absl::string_view> DictValue(absl::string_view header, absl::string_view key) {
  const std::string quoted = absl::StrCat("'", key, "'");
  size_t at = header.find(quoted);
  if (at == absl::string_view::npos) return std::nullopt;
  at = header.find(':', at + quoted.size());
  if (at == absl::string_view::npos) return std::nullopt;
  at = header.find_first_not_of(' ', at + 1);
  if (at == absl::string_view::npos) return std::nullopt;
  return header.substr(at);
}

absl::StatusOr<std::vector<int64_t>> ParseShape(absl::string_view text, const std::string& path) {
  const size_t close = text.find(')');
  if (text.empty() || text.front() != '(' || close == absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the .npy header has no shape"));
  }
  std::vector<int64_t> shape;
  absl::string_view rest = text.substr(1, close - 1);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const absl::string_view part = rest.substr(0, comma);
    int64_t extent = 0;
    if (part.find_first_not_of(' ') != absl::string_view::npos) {
      if (!absl::SimpleAtoi(part, &extent) || extent < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": the .npy header's shape has a bad extent '", part, "'"));
      }
      shape.push_back(extent);
    }
    if (comma == absl::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  return shape;
}

}  // namespace

absl::StatusOr<Matrix> ReadNpy(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const absl::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
  if (bytes.size() < 10 || bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a .npy file (bad magic bytes)"));
  }
  const int major = static_cast<unsigned char>(bytes[6]);
  if (major < 1 || major > 3) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": .npy version ", major, " is not supported (1 to 3 are)"));
  }
  size_t header_at = 10;
  size_t header_size = static_cast<unsigned char>(bytes[8]) | static_cast<unsigned char>(bytes[9])
                                                                  << 8;
  if (major > 1) {
    if (bytes.size() < 12)
      return absl::InvalidArgumentError(absl::StrCat(path, " is cut off in its header"));
    uint32_t size = 0;
    std::memcpy(&size, bytes.data() + 8, sizeof(size));
    header_size = size;
    header_at = 12;
  }
  if (bytes.size() - header_at < header_size) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is cut off in its header"));
  }
  const absl::string_view header = bytes.substr(header_at, header_size);
  const auto dtype = DictValue(header, "descr");
  if (!dtype || dtype->substr(0, 5) != "'<f4'") {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": dtype is ", dtype ? dtype->substr(0, dtype->find(',')) : "missing",
        ", but features must be little-endian float32 ('<f4'); save with array.astype('<f4')"));
  }
  const auto order = DictValue(header, "fortran_order");
  if (!order || order->substr(0, 5) != "False") {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": the array must be in C order; save with numpy.ascontiguousarray(array)"));
  }
  NESTREC_ASSIGN_OR_RETURN(const std::vector<int64_t> shape,
                           ParseShape(DictValue(header, "shape").value_or(""), path));
  if (shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the array has ", shape.size(),
                                                   " dimensions, but features are [items, width]"));
  }
  if (shape[1] != 0 && shape[0] > kMaxElements / shape[1]) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": shape ", shape[0], " x ", shape[1], " is too large"));
  }
  const size_t data_at = header_at + header_size;
  const size_t expected = static_cast<size_t>(shape[0] * shape[1]) * sizeof(float);
  if (bytes.size() - data_at != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": shape ", shape[0], " x ", shape[1], " needs ", expected,
                     " bytes of data, but the file holds ", bytes.size() - data_at));
  }
  Matrix matrix{.rows = shape[0], .columns = shape[1], .values = {}};
  matrix.values.resize(static_cast<size_t>(shape[0] * shape[1]));
  if (expected > 0) std::memcpy(matrix.values.data(), bytes.data() + data_at, expected);
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    if (!std::isfinite(matrix.values[i])) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": row ", i / matrix.columns, ", column ", i % matrix.columns, " is ",
          matrix.values[i],
          "; features must be finite numbers (a row of zeros means that the item has none)"));
    }
  }
  return matrix;
}

std::string NpyHeader(int64_t rows, int64_t columns) {
  std::string header = absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (", rows,
                                    ", ", columns, "), }");
  const size_t unpadded = kMagic.size() + 4 + header.size() + 1;
  header.append((64 - unpadded % 64) % 64, ' ');
  header.push_back('\n');
  const char prefix[4] = {1, 0, static_cast<char>(header.size() & 0xff),
                          static_cast<char>(header.size() >> 8)};
  return absl::StrCat(kMagic, absl::string_view(prefix, sizeof(prefix)), header);
}

absl::Status WriteNpy(const std::string& path, const Matrix& matrix) {
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(path));
  NESTREC_RETURN_IF_ERROR(writer->Write(NpyHeader(matrix.rows, matrix.columns)));
  NESTREC_RETURN_IF_ERROR(
      writer->Write(matrix.values.data(), matrix.values.size() * sizeof(float)));
  return writer->Commit();
}

}  // namespace nestrec

#include "index/index_file.h"

#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/printable.h"
#include "base/status_macros.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace nestrec {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the file's numbers are copied as they are");

constexpr char kMagic[8] = "NRINDEX";
constexpr uint32_t kVersion = 1;
constexpr size_t kFixedBytes = sizeof(kMagic) + 2 * sizeof(uint32_t);
constexpr size_t kAlignment = 64;
constexpr size_t kMaxKeyBytes = 4096;

struct Footer {
  uint64_t payload_bytes;
  uint64_t payload_hash;
  uint64_t header_hash;
  uint64_t footer_hash;  // of the three before
};
static_assert(sizeof(Footer) == 32);

uint64_t HashOf(const Footer& footer) {
  return XXH3_64bits(&footer, offsetof(Footer, footer_hash));
}

size_t HeaderBytes(size_t key_bytes) {
  return (kFixedBytes + key_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::string HeaderOf(absl::string_view key) {
  std::string header(HeaderBytes(key.size()), '\0');
  const auto key_bytes = static_cast<uint32_t>(key.size());
  std::memcpy(header.data(), kMagic, sizeof(kMagic));
  std::memcpy(header.data() + sizeof(kMagic), &kVersion, sizeof(kVersion));
  std::memcpy(header.data() + sizeof(kMagic) + sizeof(kVersion), &key_bytes, sizeof(key_bytes));
  std::memcpy(header.data() + kFixedBytes, key.data(), key.size());
  return header;
}

}  // namespace

struct IndexFileWriter::Hash {
  XXH3_state_t state;
};

IndexFileWriter::IndexFileWriter(std::unique_ptr<AtomicFileWriter> file, uint64_t header_hash)
    : file_(std::move(file)), hash_(std::make_unique<Hash>()), header_hash_(header_hash) {
  XXH3_64bits_reset(&hash_->state);
}

IndexFileWriter::~IndexFileWriter() = default;

absl::StatusOr<std::unique_ptr<IndexFileWriter>> IndexFileWriter::Create(const std::string& path,
                                                                         absl::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the key of ", path, " has ", key.size(),
                                                   " bytes; at most ", kMaxKeyBytes,
                                                   " are allowed"));
  }
  RemoveAbandonedTemporaries(path);
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> file, AtomicFileWriter::Create(path));
  const std::string header = HeaderOf(key);
  NESTREC_RETURN_IF_ERROR(file->Write(header));
  return std::unique_ptr<IndexFileWriter>(
      new IndexFileWriter(std::move(file), XXH3_64bits(header.data(), header.size())));
}

absl::Status IndexFileWriter::Write(const void* data, size_t size_bytes) {
  XXH3_64bits_update(&hash_->state, data, size_bytes);
  payload_bytes_ += size_bytes;
  return file_->Write(data, size_bytes);
}

absl::Status IndexFileWriter::Commit() {
  Footer footer{.payload_bytes = payload_bytes_,
                .payload_hash = XXH3_64bits_digest(&hash_->state),
                .header_hash = header_hash_,
                .footer_hash = 0};
  footer.footer_hash = HashOf(footer);
  NESTREC_RETURN_IF_ERROR(file_->Write(&footer, sizeof(footer)));
  return file_->Commit();
}

std::string IndexFileName(int dim, absl::string_view factory) {
  constexpr size_t kReadable = 48;
  std::string readable(factory.substr(0, kReadable));
  for (char& c : readable) {
    c = absl::ascii_isalnum(static_cast<unsigned char>(c)) ? c : '_';
  }
  return absl::StrCat("dim", dim, "-", readable, "-",
                      absl::Hex(XXH3_64bits(factory.data(), factory.size()), absl::kZeroPad16),
                      ".index");
}

absl::StatusOr<IndexFile> OpenIndexFile(const std::string& path, absl::string_view key) {
  NESTREC_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> mapping, MappedFile::Open(path));
  const auto* bytes = reinterpret_cast<const char*>(mapping->data());
  const size_t size = mapping->size();
  const auto damaged = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(path, " is damaged: ", what));
  };
  if (size < kFixedBytes + sizeof(Footer)) {
    return damaged(absl::StrCat("it has ", size, " bytes, fewer than any index file"));
  }
  if (std::memcmp(bytes, kMagic, sizeof(kMagic)) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is no index file of nestrec"));
  }
  uint32_t version = 0;
  uint32_t key_bytes = 0;
  std::memcpy(&version, bytes + sizeof(kMagic), sizeof(version));
  std::memcpy(&key_bytes, bytes + sizeof(kMagic) + sizeof(version), sizeof(key_bytes));
  if (version != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has format version ", version, "; this program reads ", kVersion));
  }
  // The footer first: what it says is needed to check the rest.
  Footer footer;
  std::memcpy(&footer, bytes + size - sizeof(footer), sizeof(footer));
  if (footer.footer_hash != HashOf(footer)) {
    return damaged("its end is cut or changed");
  }
  if (key_bytes > kMaxKeyBytes || HeaderBytes(key_bytes) + sizeof(Footer) > size) {
    return damaged("its header is changed");
  }
  const size_t header_bytes = HeaderBytes(key_bytes);
  if (footer.header_hash != XXH3_64bits(bytes, header_bytes)) {
    return damaged("its header is changed");
  }
  if (footer.payload_bytes != size - header_bytes - sizeof(footer)) {
    return damaged(absl::StrCat("it has ", size - header_bytes - sizeof(footer),
                                " bytes of index; ", footer.payload_bytes, " were written"));
  }
  const absl::string_view stored_key(bytes + kFixedBytes, key_bytes);
  if (stored_key != key) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is of ", Printable(stored_key),
                                                      "; needed is one of ", Printable(key)));
  }
  if (footer.payload_hash != XXH3_64bits(bytes + header_bytes, footer.payload_bytes)) {
    return damaged("the index in it is changed");
  }
  return IndexFile{.mapping = mapping,
                   .payload = mapping->bytes().subspan(header_bytes, footer.payload_bytes)};
}

}  // namespace nestrec

#include "server/live/item_log.h"

#define XXH_INLINE_ALL
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr absl::string_view kMagic("NRITEMS\0", 8);
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 16;
constexpr uint32_t kFrameMagic = 0x4d544952;  // "RITM"
constexpr size_t kFrameBytes = 16;            // before the payload
constexpr size_t kMostPayloadBytes = size_t{1} << 30;
// Items of a frame when everything is written anew.
constexpr int kItemsAFrame = 64;

template <typename T>
void AppendNumber(T value, std::string& out) {  // little-endian, as all machines that we build for
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T NumberAt(absl::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// The place belongs to the checksum: bytes of another place are never taken for a frame.
uint64_t HashOf(absl::string_view payload, uint64_t offset) {
  return XXH3_64bits_withSeed(payload.data(), payload.size(), offset);
}

std::string Header() {
  std::string header(kMagic);
  AppendNumber(kVersion, header);
  AppendNumber(uint32_t{0}, header);
  return header;
}

std::string FrameOf(const v1::StoredItems& items, uint64_t offset) {
  const std::string payload = items.SerializeAsString();
  std::string frame;
  frame.reserve(kFrameBytes + payload.size());
  AppendNumber(kFrameMagic, frame);
  AppendNumber(static_cast<uint32_t>(payload.size()), frame);
  AppendNumber(HashOf(payload, offset), frame);
  return frame + payload;
}

// The payload of the whole and undamaged frame at `at`, if there is one.
std::optional<absl::string_view> PayloadAt(absl::string_view bytes, size_t at) {
  if (bytes.size() - at < kFrameBytes || NumberAt<uint32_t>(bytes, at) != kFrameMagic) {
    return std::nullopt;
  }
  const auto size = NumberAt<uint32_t>(bytes, at + 4);
  if (size > bytes.size() - at - kFrameBytes) return std::nullopt;
  const absl::string_view payload = bytes.substr(at + kFrameBytes, size);
  if (HashOf(payload, at) != NumberAt<uint64_t>(bytes, at + 8)) return std::nullopt;
  return payload;
}

}  // namespace

absl::StatusOr<ItemLog::Opened> ItemLog::Open(
    const std::string& folder, absl::FunctionRef<absl::Status(v1::StoredItem)> visit) {
  NESTREC_RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string lock_path = absl::StrCat(folder, "/items.lock");
  const int lock_fd = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd < 0) return ErrnoStatus(errno, "cannot open", lock_path);
  std::unique_ptr<ItemLog> log(new ItemLog(absl::StrCat(folder, "/items.log"), lock_fd));
  if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder, ": another server keeps its items here; give each a folder of its own"));
  }
  RemoveAbandonedTemporaries(log->path_);
  Opened opened;
  if (!FileExists(log->path_)) {
    NESTREC_RETURN_IF_ERROR(WriteFileAtomically(log->path_, Header()));
  }
  NESTREC_ASSIGN_OR_RETURN(opened.dropped_bytes, log->Read(visit));
  opened.log = std::move(log);
  return opened;
}

ItemLog::~ItemLog() {
  Close();
  close(lock_fd_);
}

void ItemLog::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::Status ItemLog::Reopen(uint64_t size_bytes) {
  Close();
  const int fd = open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path_);
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) != 0 || fdatasync(fd) != 0) {
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "cannot cut", path_);
  }
  fd_ = fd;
  size_bytes_ = size_bytes;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ItemLog::Read(absl::FunctionRef<absl::Status(v1::StoredItem)> visit) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path_));
  const absl::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
  if (bytes.size() < kHeaderBytes || bytes.substr(0, kMagic.size()) != kMagic) {
    return absl::DataLossError(absl::StrCat(
        path_, " does not begin as a file of items does; restore it from a copy, or move it away"));
  }
  if (const auto version = NumberAt<uint32_t>(bytes, kMagic.size()); version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(path_, " is of format version ", version,
                                                      "; this release reads version ", kVersion));
  }
  size_t at = kHeaderBytes;
  while (at < bytes.size()) {
    const std::optional<absl::string_view> payload = PayloadAt(bytes, at);
    if (!payload.has_value()) {
      size_t next = at + 1;
      while (next < bytes.size() && !PayloadAt(bytes, next).has_value()) ++next;
      if (next == bytes.size()) break;  // the last call was never completed
      return absl::DataLossError(
          absl::StrCat(path_, " is damaged at byte ", at, " of ", bytes.size(),
                       ": whole records follow at byte ", next,
                       ". Restore it from a copy; or cut it with `truncate -s ", at,
                       "`, which loses what was upserted and removed after"));
    }
    v1::StoredItems items;
    if (!items.ParseFromArray(payload->data(), static_cast<int>(payload->size()))) {
      return absl::DataLossError(absl::StrCat(path_, " has a record that cannot be read at byte ",
                                              at, "; restore it from a copy"));
    }
    for (v1::StoredItem& item : *items.mutable_items()) {
      NESTREC_RETURN_IF_ERROR(visit(std::move(item)));
    }
    at += kFrameBytes + payload->size();
  }
  NESTREC_RETURN_IF_ERROR(Reopen(at));
  return bytes.size() - at;
}

absl::Status ItemLog::Append(const v1::StoredItems& items) {
  if (!usable()) {
    return absl::UnavailableError(
        absl::StrCat(path_, " takes no more changes since writing it failed"));
  }
  if (items.ByteSizeLong() > kMostPayloadBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the changes have ", items.ByteSizeLong(),
                                                     " bytes; at most ", kMostPayloadBytes,
                                                     " can be kept at once; send them in parts"));
  }
  const std::string frame = FrameOf(items, size_bytes_);
  absl::Status status = WriteAll(fd_, frame, path_);
  if (!status.ok()) {
    if (ftruncate(fd_, static_cast<off_t>(size_bytes_)) != 0) Close();
    return status;
  }
  if (fdatasync(fd_) != 0) {
    status = ErrnoStatus(errno, "cannot sync", path_);
    // The kernel may have dropped the pages that it could not write.
    Close();
    return status;
  }
  size_bytes_ += frame.size();
  return absl::OkStatus();
}

absl::Status ItemLog::Rewrite(absl::FunctionRef<const v1::StoredItem*()> next) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> file,
                           AtomicFileWriter::Create(path_));
  NESTREC_RETURN_IF_ERROR(file->Write(Header()));
  uint64_t size = kHeaderBytes;
  const v1::StoredItem* item = next();
  while (item != nullptr) {
    v1::StoredItems items;
    for (; item != nullptr && items.items_size() < kItemsAFrame; item = next()) {
      *items.add_items() = *item;
    }
    const std::string frame = FrameOf(items, size);
    NESTREC_RETURN_IF_ERROR(file->Write(frame));
    size += frame.size();
  }
  NESTREC_RETURN_IF_ERROR(file->Commit());
  // The old file is gone; what was open is it.
  return Reopen(size);
}

}  // namespace nestrec

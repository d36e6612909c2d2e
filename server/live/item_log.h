// The file of upserted and removed items: grows by one frame a call, is read again at the start,
// and is written anew when most of it is outdated. docs/live_items.md has the bytes.
//
// What Append returned ok for is on the disk: it survives the end of the process at any moment, and
// that of the machine. A frame that was not completed leaves no trace.
//
// One process at a time: the folder is locked.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nestrec/v1/stored_item.pb.h"

namespace nestrec {

class ItemLog {
 public:
  // Gives `visit` every item in the order in which it was written. `dropped_bytes` of a frame that
  // was never completed are cut off. kFailedPrecondition: another process has the folder, or the
  // file is of another release's format. kDataLoss: damaged in the middle; the place is named.
  // Errors of base/file.h.
  struct Opened {
    std::unique_ptr<ItemLog> log;
    uint64_t dropped_bytes = 0;
  };
  static absl::StatusOr<Opened> Open(const std::string& folder,
                                     absl::FunctionRef<absl::Status(v1::StoredItem)> visit);
  ~ItemLog();
  ItemLog(const ItemLog&) = delete;
  ItemLog& operator=(const ItemLog&) = delete;

  // All of it, or after an error nothing. kResourceExhausted: the disk is full, or more than a
  // frame holds (1 GiB).
  absl::Status Append(const v1::StoredItems& items);
  // Replaces everything by what `next` gives until it returns null. After an error the file is as
  // it was.
  absl::Status Rewrite(absl::FunctionRef<const v1::StoredItem*()> next);

  uint64_t size_bytes() const { return size_bytes_; }
  // False after a failed write or sync that left unknown what the disk holds: only Rewrite makes it
  // usable again.
  bool usable() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }

 private:
  ItemLog(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
  absl::StatusOr<uint64_t> Read(absl::FunctionRef<absl::Status(v1::StoredItem)> visit);
  absl::Status Reopen(uint64_t size_bytes);
  void Close();

  const std::string path_;
  const int lock_fd_;
  int fd_ = -1;
  uint64_t size_bytes_ = 0;
};

}  // namespace nestrec

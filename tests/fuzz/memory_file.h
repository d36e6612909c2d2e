// Bytes under a path, for readers of files: in memory, and gone with the object.
//
// Not thread-safe.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

class MemoryFile {
 public:
  // Aborts where the system has no memory left for it.
  explicit MemoryFile(absl::string_view bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

}  // namespace nestrec

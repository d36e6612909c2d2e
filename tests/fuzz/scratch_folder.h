// A folder for readers that want one, removed with the object; in memory where the system has such
// a file system.
//
// Not thread-safe.
#pragma once

#include <string>

namespace nestrec {

class ScratchFolder {
 public:
  // Aborts where none can be made.
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace nestrec

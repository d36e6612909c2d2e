// How much of a file is in this process's memory.
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace nestrec {

// Bytes of the mappings of files whose path ends so that are in this process's memory: what was
// read, and up to 64 KiB around it (the kernel maps neighbours that it has at hand).
inline int64_t ResidentBytes(absl::string_view path_end) {
  std::ifstream smaps("/proc/self/smaps");
  int64_t bytes = 0;
  bool ours = false;
  for (std::string line; std::getline(smaps, line);) {
    if (absl::StrContains(line, "-") && absl::StrContains(line, " r")) {
      ours = absl::EndsWith(line, path_end);
    } else if (ours && absl::StartsWith(line, "Rss:")) {
      int64_t kib = 0;
      std::istringstream(line.substr(4)) >> kib;
      bytes += 1024 * kib;
    }
  }
  return bytes;
}

}  // namespace nestrec

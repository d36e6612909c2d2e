// What bounds the memory of this process, as the operating system says it: control groups (v2 and
// v1, of every group above it too), the limits of the process, and what the machine has left.
//
// Thread safety: pure but for the files that it reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nestrec {

struct MemoryLimit {
  std::string name;  // for people: "memory.max of the control group (/sys/fs/cgroup/memory.max)"
  uint64_t limit_bytes = 0;
  // What is left of it. Pages of files that the system can drop and read again count as left.
  uint64_t left_bytes = 0;
  // Counts what is mapped when it is mapped, not when it is touched (RLIMIT_AS, RLIMIT_DATA): what
  // an open checkpoint maps is in it already.
  bool counts_mappings = false;

  friend bool operator==(const MemoryLimit&, const MemoryLimit&) = default;
};

// All that hold. Files that are not there or cannot be read set no limit. `root` is put before
// /proc and /sys, for tests.
std::vector<MemoryLimit> ReadMemoryLimits(const std::string& root = "");

// Bytes of this process that are resident and no file's: RssAnon of /proc/self/status; 0 where the
// system does not say.
uint64_t AnonymousBytes(const std::string& root = "");

}  // namespace nestrec

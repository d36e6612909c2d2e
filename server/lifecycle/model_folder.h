// The model versions at a path: the checkpoints of a folder, or one file.
//
// A version is a file <name>.safetensors of the folder; files whose name begins with a dot are not
// (writers' temporary files do). Symbolic links are followed.
//
// Thread safety: pure functions, but for what they read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

// Tells a file from what later stands under its name.
struct FileStamp {
  uint64_t device = 0, inode = 0;
  int64_t bytes = 0, modified_ns = 0, changed_ns = 0;

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

struct ModelFile {
  std::string name;
  std::string path;
  FileStamp stamp;

  friend bool operator==(const ModelFile&, const ModelFile&) = default;
};

// Whether `a` comes before `b` as people order names: runs of digits as numbers, everything else
// byte by byte. A strict order on different names: where only leading zeros differ, bytes decide.
bool NaturalLess(absl::string_view a, absl::string_view b);

bool IsFolder(const std::string& path);

// The versions at `path`, in natural order; of a file that one. kNotFound, naming the path and the
// cure, where there is nothing; kPermissionDenied, kUnavailable as base/file.h. A folder without
// versions has none, which is no error.
absl::StatusOr<std::vector<ModelFile>> ListModels(const std::string& path);

}  // namespace nestrec

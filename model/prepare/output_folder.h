// The folder that `prepare` writes: whether it may, and what an earlier run left in it.
//
// Errors of base/file.h. Thread safety: independent folders may be handled at the same time.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace nestrec {

// A data folder that is being written. Unless Keep() is called, one that was not there, or empty,
// is so again at the end. Movable, not thread-safe.
class OutputFolder {
 public:
  // Makes `path` ready to be written to. kAlreadyExists when it is not empty, unless `overwrite`;
  // kInvalidArgument when it, or what it is to be in, is a file.
  static absl::StatusOr<OutputFolder> Open(const std::string& path, bool overwrite);
  ~OutputFolder();
  OutputFolder(OutputFolder&& other) noexcept
      : created_(std::move(other.created_)),
        path_(std::exchange(other.path_, {})),
        was_empty_(other.was_empty_) {}
  OutputFolder& operator=(OutputFolder&&) = delete;

  // Removes the report, the interactions, the text encoder and all features (.npy): features of
  // other items must not stay beside new ones. Other files stay.
  absl::Status RemoveOldData() const;
  // What was written stays.
  void Keep();

 private:
  OutputFolder(std::string path, bool was_empty, NewFolders created)
      : created_(std::move(created)), path_(std::move(path)), was_empty_(was_empty) {}

  NewFolders created_;
  std::string path_;  // empty: kept, or moved from
  bool was_empty_;
};

}  // namespace nestrec

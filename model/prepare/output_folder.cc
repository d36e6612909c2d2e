#include "model/prepare/output_folder.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<OutputFolder> OutputFolder::Open(const std::string& path, bool overwrite) {
  NESTREC_ASSIGN_OR_RETURN(NewFolders created, NewFolders::Create(path));
  std::error_code error;
  const bool is_empty = std::filesystem::is_empty(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot list", path);
  if (!overwrite && !is_empty) {
    return absl::AlreadyExistsError(absl::StrCat(
        path, " is not empty; choose another --out, or replace the data in it with --overwrite"));
  }
  return OutputFolder(path, is_empty, std::move(created));
}

OutputFolder::~OutputFolder() {
  if (path_.empty() || !was_empty_) return;
  // Only what prepare writes, by name: somebody else may have put files there meanwhile.
  RemoveOldData().IgnoreError();
  unlink((path_ + "/items.jsonl").c_str());
  rmdir((path_ + "/features").c_str());
}

void OutputFolder::Keep() {
  created_.Keep();
  path_.clear();
}

absl::Status OutputFolder::RemoveOldData() const {
  const std::filesystem::path root(path_);
  std::vector<std::filesystem::path> old = {root / "prepare_report.json", root / "interactions.txt",
                                            root / "features/text.encoder.safetensors"};
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(root / "features", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".npy") old.push_back(entry->path());
  }
  for (const std::filesystem::path& path : old) {
    std::filesystem::remove(path, error);
    if (error && error != std::errc::no_such_file_or_directory) {
      return ErrnoStatus(error.value(), "cannot remove", path.string());
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec

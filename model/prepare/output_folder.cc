#include "model/prepare/output_folder.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace nestrec {

absl::Status OpenOutputFolder(const std::string& folder, bool overwrite) {
  std::error_code error;
  if (std::filesystem::exists(folder, error)) {
    if (!std::filesystem::is_directory(folder, error)) {
      return absl::InvalidArgumentError(
          absl::StrCat(folder, " is a file, not a folder; choose another --out"));
    }
    if (!overwrite && !std::filesystem::is_empty(folder, error)) {
      return absl::AlreadyExistsError(absl::StrCat(
          folder, " is not empty; choose another --out, or replace the data in it with ",
          "--overwrite"));
    }
  }
  return MakeDirectories(folder);
}

absl::Status RemoveOldData(const std::string& folder) {
  const std::filesystem::path root(folder);
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

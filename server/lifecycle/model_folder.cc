#include "server/lifecycle/model_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace nestrec {
namespace {

constexpr absl::string_view kSuffix = ".safetensors";

// Nothing for what is no regular file, or has gone in the meantime.
absl::StatusOr<std::optional<ModelFile>> Describe(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return std::nullopt;
    return ErrnoStatus(errno, "cannot look at", path);
  }
  if (!S_ISREG(info.st_mode)) return std::nullopt;
  const std::string file = std::filesystem::path(path).filename().string();
  const auto nanoseconds = [](const timespec& time) {
    return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
  };
  return ModelFile{.name = std::string(absl::StripSuffix(file, kSuffix)),
                   .path = path,
                   .stamp = {.device = static_cast<uint64_t>(info.st_dev),
                             .inode = static_cast<uint64_t>(info.st_ino),
                             .bytes = static_cast<int64_t>(info.st_size),
                             .modified_ns = nanoseconds(info.st_mtim),
                             .changed_ns = nanoseconds(info.st_ctim)}};
}

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

// The run of digits that `text` begins with, without leading zeros.
absl::string_view TakeNumber(absl::string_view& text) {
  size_t end = 0;
  while (end < text.size() && IsDigit(text[end])) ++end;
  absl::string_view number = text.substr(0, end);
  text.remove_prefix(end);
  while (number.size() > 1 && number.front() == '0') number.remove_prefix(1);
  return number;
}

}  // namespace

bool NaturalLess(absl::string_view a, absl::string_view b) {
  absl::string_view left = a;
  absl::string_view right = b;
  while (!left.empty() && !right.empty()) {
    if (IsDigit(left.front()) && IsDigit(right.front())) {
      const absl::string_view one = TakeNumber(left);
      const absl::string_view other = TakeNumber(right);
      if (one.size() != other.size()) return one.size() < other.size();
      if (one != other) return one < other;
    } else if (left.front() != right.front()) {
      return static_cast<unsigned char>(left.front()) < static_cast<unsigned char>(right.front());
    } else {
      left.remove_prefix(1);
      right.remove_prefix(1);
    }
  }
  if (left.empty() != right.empty()) return left.empty();
  return a < b;
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

absl::StatusOr<std::vector<ModelFile>> ListModels(const std::string& path) {
  if (!IsFolder(path)) {
    absl::StatusOr<std::optional<ModelFile>> file = Describe(path);
    if (!file.ok()) return file.status();
    if (!file->has_value()) {
      return absl::NotFoundError(absl::StrCat(
          path, " is neither a checkpoint nor a folder of them; `nestrec train` makes one"));
    }
    return std::vector<ModelFile>{**std::move(file)};
  }
  std::vector<ModelFile> files;
  std::error_code error;
  std::filesystem::directory_iterator entries(path, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (name.front() == '.' || !absl::EndsWith(name, kSuffix) || name.size() == kSuffix.size()) {
      continue;
    }
    absl::StatusOr<std::optional<ModelFile>> file = Describe(entries->path().string());
    if (!file.ok()) return file.status();
    if (file->has_value()) files.push_back(**std::move(file));
  }
  if (error) return ErrnoStatus(error.value(), "cannot list the models in", path);
  std::sort(files.begin(), files.end(),
            [](const ModelFile& a, const ModelFile& b) { return NaturalLess(a.name, b.name); });
  return files;
}

}  // namespace nestrec

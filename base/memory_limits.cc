#include "base/memory_limits.h"

#include <algorithm>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace nestrec {
namespace {

// From here on a number stands for "no limit": control groups v1 say so with almost 2^63.
constexpr uint64_t kUnlimited = uint64_t{1} << 62;

std::vector<std::string> LinesOf(const std::string& path) {
  return absl::StrSplit(ReadFile(path).value_or(""), '\n', absl::SkipEmpty());
}

// The file's only number; nothing for a file that is not there or says "max".
std::optional<uint64_t> NumberIn(const std::string& path) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(ReadFile(path).value_or(""), &number)) return std::nullopt;
  return number;
}

// The number behind `key` in a file of lines `key number [unit]`.
std::optional<uint64_t> NumberOf(const std::string& path, absl::string_view key) {
  for (const std::string& line : LinesOf(path)) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    uint64_t number = 0;
    if (words.size() >= 2 && words[0] == key && absl::SimpleAtoi(words[1], &number)) {
      return words.size() > 2 && words[2] == "kB" ? number << 10 : number;
    }
  }
  return std::nullopt;
}

uint64_t Left(uint64_t limit, uint64_t used) { return limit - std::min(limit, used); }

// The names of one version of control groups.
struct GroupFiles {
  absl::string_view mount, limit, usage, active_file, inactive_file;
};
constexpr GroupFiles kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "active_file",
                                  "inactive_file"};
constexpr GroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                  "memory.usage_in_bytes", "total_active_file",
                                  "total_inactive_file"};

// The limits of `group` and of those above it. In a container the path may be the host's, which is
// not to be seen from inside; the mount's own folder is then the container's group.
void AddGroups(const std::string& root, const GroupFiles& files, std::string group,
               std::vector<MemoryLimit>& limits) {
  while (true) {
    const std::string shown = absl::StrCat(files.mount, group == "/" ? "" : group, "/");
    const std::string folder = absl::StrCat(root, shown);
    const std::optional<uint64_t> limit = NumberIn(absl::StrCat(folder, files.limit));
    if (limit.has_value() && *limit < kUnlimited) {
      const std::string stat = absl::StrCat(folder, "memory.stat");
      const uint64_t usage = NumberIn(absl::StrCat(folder, files.usage)).value_or(0);
      const uint64_t cached = NumberOf(stat, files.active_file).value_or(0) +
                              NumberOf(stat, files.inactive_file).value_or(0);
      limits.push_back(
          {.name = absl::StrCat("the control group's limit (", shown, files.limit, ")"),
           .limit_bytes = *limit,
           .left_bytes = Left(*limit, usage - std::min(usage, cached))});
    }
    const size_t slash = group.rfind('/');
    if (group.empty() || group == "/" || slash == std::string::npos) return;
    group.resize(slash);
  }
}

void AddControlGroups(const std::string& root, std::vector<MemoryLimit>& limits) {
  // Lines are `number:controllers:path`; version 2 has one with the number 0 and no controllers.
  for (const std::string& line : LinesOf(absl::StrCat(root, "/proc/self/cgroup"))) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    if (parts[0] == "0" && parts[1].empty()) {
      AddGroups(root, kVersion2, parts[2], limits);
      continue;
    }
    for (const absl::string_view controller : absl::StrSplit(parts[1], ',')) {
      if (controller == "memory") AddGroups(root, kVersion1, parts[2], limits);
    }
  }
}

// A soft limit of /proc/self/limits: `Max address space  1073741824  unlimited  bytes`.
std::optional<uint64_t> ProcessLimit(const std::string& root, absl::string_view title) {
  for (const std::string& line : LinesOf(absl::StrCat(root, "/proc/self/limits"))) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, title)) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(rest, ' ', absl::SkipEmpty());
    uint64_t number = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &number)) return number;
  }
  return std::nullopt;
}

}  // namespace

std::vector<MemoryLimit> ReadMemoryLimits(const std::string& root) {
  std::vector<MemoryLimit> limits;
  AddControlGroups(root, limits);
  const std::string status = absl::StrCat(root, "/proc/self/status");
  const auto add = [&](absl::string_view title, absl::string_view name, absl::string_view used) {
    const std::optional<uint64_t> limit = ProcessLimit(root, title);
    if (!limit.has_value()) return;
    limits.push_back({.name = std::string(name),
                      .limit_bytes = *limit,
                      .left_bytes = Left(*limit, NumberOf(status, used).value_or(0)),
                      .counts_mappings = true});
  };
  add("Max address space", "the process's limit of address space (ulimit -v)", "VmSize:");
  add("Max data size", "the process's limit of data (ulimit -d)", "VmData:");
  const std::string machine = absl::StrCat(root, "/proc/meminfo");
  const std::optional<uint64_t> total = NumberOf(machine, "MemTotal:");
  const std::optional<uint64_t> available = NumberOf(machine, "MemAvailable:");
  if (total.has_value() && available.has_value()) {
    limits.push_back(
        {.name = "the machine's memory", .limit_bytes = *total, .left_bytes = *available});
  }
  return limits;
}

uint64_t AnonymousBytes(const std::string& root) {
  return NumberOf(absl::StrCat(root, "/proc/self/status"), "RssAnon:").value_or(0);
}

}  // namespace nestrec

#include "server/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/file.h"

namespace nestrec {
namespace {

// Of /proc/self/stat, counted from 0 behind the program's name (proc(5)).
constexpr size_t kUserTicks = 11;
constexpr size_t kSystemTicks = 12;
constexpr size_t kThreads = 17;
constexpr size_t kStartTicks = 19;
constexpr size_t kVirtualBytes = 20;
constexpr size_t kResidentPages = 21;

// The fields behind the program's name, which may hold spaces and parentheses itself.
std::vector<double> StatFields() {
  const absl::StatusOr<std::string> stat = ReadFile("/proc/self/stat");
  if (!stat.ok()) return {};
  const size_t name_end = stat->rfind(") ");
  if (name_end == std::string::npos) return {};
  std::vector<double> fields;
  for (const absl::string_view field :
       absl::StrSplit(absl::string_view(*stat).substr(name_end + 2), ' ')) {
    double value = 0;  // the state is a letter
    if (!absl::SimpleAtod(absl::StripSuffix(field, "\n"), &value)) value = 0;
    fields.push_back(value);
  }
  return fields;
}

// Seconds since 1970, when the machine started.
std::optional<double> BootTime() {
  const absl::StatusOr<std::string> stat = ReadFile("/proc/stat");
  if (!stat.ok()) return std::nullopt;
  for (absl::string_view line : absl::StrSplit(*stat, '\n')) {
    double seconds = 0;
    if (absl::ConsumePrefix(&line, "btime ") && absl::SimpleAtod(line, &seconds)) return seconds;
  }
  return std::nullopt;
}

std::optional<double> OpenFiles() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return std::nullopt;
  double count = 0;
  while (const dirent* entry = readdir(folder)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(folder);
  return count - 1;  // the folder itself
}

}  // namespace

void WriteProcessMetrics(MetricWriter& writer) {
  const std::vector<double> fields = StatFields();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (fields.size() > kResidentPages && ticks > 0) {
    writer.Gauge("process_resident_memory_bytes", "Memory that is resident.",
                 fields[kResidentPages] * static_cast<double>(sysconf(_SC_PAGESIZE)));
    writer.Gauge("process_virtual_memory_bytes", "Address space.", fields[kVirtualBytes]);
    writer.Gauge("process_threads", "Threads.", fields[kThreads]);
    writer.Counter("process_cpu_seconds_total", "Processor time of user and system, in seconds.",
                   (fields[kUserTicks] + fields[kSystemTicks]) / ticks);
    if (const std::optional<double> boot = BootTime()) {
      writer.Gauge("process_start_time_seconds", "When the process began, in seconds since 1970.",
                   *boot + fields[kStartTicks] / ticks);
    }
  }
  if (const std::optional<double> open = OpenFiles()) {
    writer.Gauge("process_open_fds", "File descriptors that are open.", *open);
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    writer.Gauge("process_max_fds", "File descriptors that may be open.",
                 static_cast<double>(limit.rlim_cur));
  }
}

std::unique_ptr<Metrics::Registration> CollectProcessMetrics(Metrics& metrics) {
  return metrics.Collect(WriteProcessMetrics);
}

}  // namespace nestrec

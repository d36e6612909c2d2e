#include "server/load/load_report.h"

namespace nestrec {

void LoadReport::CountAnswer(absl::Duration from_due, int dim) {
  latency.Add(from_due);
  if (dim > 0) ++dims[dim];
}

void LoadReport::CountError(const absl::Status& status) {
  Errors& of_code = errors[status.code()];
  if (of_code.count++ == 0) of_code.example = std::string(status.message());
}

int64_t LoadReport::failed() const {
  int64_t failed = 0;
  for (const auto& [code, of_code] : errors) failed += of_code.count;
  return failed;
}

double LoadReport::offered_rate() const {
  return static_cast<double>(due()) / absl::ToDoubleSeconds(duration);
}

double LoadReport::goodput() const {
  return static_cast<double>(latency.CountUpTo(within)) / absl::ToDoubleSeconds(duration);
}

}  // namespace nestrec

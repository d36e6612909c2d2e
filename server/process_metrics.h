// What the operating system says of this process, under the names that all Prometheus clients use:
// process_resident_memory_bytes, process_virtual_memory_bytes, process_cpu_seconds_total,
// process_open_fds, process_max_fds, process_start_time_seconds, process_threads. What /proc does
// not tell is left out.
//
// Thread safety: pure but for the operating system.
#pragma once

#include <memory>

#include "server/metrics.h"

namespace nestrec {

void WriteProcessMetrics(MetricWriter& writer);

[[nodiscard]] std::unique_ptr<Metrics::Registration> CollectProcessMetrics(Metrics& metrics);

}  // namespace nestrec

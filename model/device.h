// Where training computes: on the processor, or on an NVIDIA device where libtorch was built for
// them.
//
// Thread safety: pure functions.
#pragma once

#include "absl/status/status.h"

namespace nestrec {

enum class DeviceKind { kCpu, kCuda };

// Whether this process can train there; `local_rank` counts the processes of this machine, each of
// which takes an NVIDIA device of its own. kFailedPrecondition, with the cure, for a libtorch
// without CUDA and for a machine with too few devices.
absl::Status CheckDevice(DeviceKind kind, int local_rank);

}  // namespace nestrec

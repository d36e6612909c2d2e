// How a process takes part in data-parallel training: what torchrun, or a person, puts into the
// environment of every process.
//
//   RANK, WORLD_SIZE              which process this is, 0 to WORLD_SIZE - 1, and of how many
//   MASTER_ADDR, MASTER_PORT      where rank 0 listens for the others
//   LOCAL_RANK, LOCAL_WORLD_SIZE  the same on this machine alone; may be missing
//   GLOO_SOCKET_IFNAME            network interface for the traffic; otherwise the one that leads
//   to
//                                 MASTER_ADDR
//
// Without RANK and WORLD_SIZE, or with a WORLD_SIZE of 1, a process trains alone.
//
// Thread safety: plain values.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nestrec {

struct GroupOptions {
  int rank = 0;
  int size = 1;
  int local_rank = 0;  // the device of this machine to use
  int local_size = 1;  // processes that share this machine
  std::string master_address;
  int master_port = 0;
  std::string interface;
  // torchrun itself holds the store that rank 0 would, and every restart has a part of its own.
  bool agent_has_store = false;
  std::string store_prefix;
  // Whether the tensors live on an NVIDIA device: NCCL carries them where libtorch has it.
  bool on_cuda = false;
  // The longest wait for another process: to appear, and within a step. Evaluation may take longer.
  absl::Duration timeout = absl::Minutes(10);
};

// kInvalidArgument, naming the variable, its value, the limits and the cure. `lookup` is
// std::getenv outside of tests: null where a variable is not set.
absl::StatusOr<GroupOptions> GroupFromEnvironment(
    absl::FunctionRef<const char*(const char* name)> lookup);

}  // namespace nestrec

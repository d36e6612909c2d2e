#include "model/group_options.h"

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr int kMostProcesses = 4096;

using Lookup = absl::FunctionRef<const char*(const char*)>;

// An empty variable counts as one that is not set, as a shell script leaves it.
std::optional<std::string> Find(Lookup lookup, const char* name) {
  const char* value = lookup(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

absl::StatusOr<int> Parse(absl::string_view name, const std::string& text, int low, int high,
                          absl::string_view cure) {
  int value = 0;
  if (absl::SimpleAtoi(text, &value) && value >= low && value <= high) return value;
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": '", text, "' is not a number from ", low, " to ", high, "; ", cure));
}

absl::Status Missing(absl::string_view name, int size, absl::string_view cure) {
  return absl::InvalidArgumentError(absl::StrCat(
      name, ": not set, but WORLD_SIZE is ", size, "; ", cure,
      ", or unset WORLD_SIZE and RANK to train with this process alone (docs/distributed.md)"));
}

}  // namespace

absl::StatusOr<GroupOptions> GroupFromEnvironment(Lookup lookup) {
  const std::optional<std::string> rank = Find(lookup, "RANK");
  const std::optional<std::string> size = Find(lookup, "WORLD_SIZE");
  GroupOptions options;
  if (!size) {
    if (!rank) return options;
    return absl::InvalidArgumentError(
        absl::StrCat("RANK: is '", *rank, "', but WORLD_SIZE is not set; set it to the number of ",
                     "processes, or unset RANK to train with this process alone"));
  }
  NESTREC_ASSIGN_OR_RETURN(options.size,
                           Parse("WORLD_SIZE", *size, 1, kMostProcesses,
                                 "it is the number of processes that train together"));
  if (rank) {
    NESTREC_ASSIGN_OR_RETURN(
        options.rank, Parse("RANK", *rank, 0, options.size - 1,
                            absl::StrCat("ranks count from 0, and WORLD_SIZE is ", options.size)));
  }
  if (options.size == 1) return options;
  if (!rank) return Missing("RANK", options.size, "give every process its own, from 0 on");
  const std::optional<std::string> address = Find(lookup, "MASTER_ADDR");
  if (!address) {
    return Missing("MASTER_ADDR", options.size, "set it to the address of rank 0's machine");
  }
  options.master_address = *address;
  const std::optional<std::string> port = Find(lookup, "MASTER_PORT");
  if (!port) {
    return Missing("MASTER_PORT", options.size, "set it to a free port of rank 0's machine");
  }
  NESTREC_ASSIGN_OR_RETURN(options.master_port,
                           Parse("MASTER_PORT", *port, 1, UINT16_MAX,
                                 "give all processes the same free port of rank 0's machine"));
  if (const auto local_size = Find(lookup, "LOCAL_WORLD_SIZE")) {
    NESTREC_ASSIGN_OR_RETURN(options.local_size,
                             Parse("LOCAL_WORLD_SIZE", *local_size, 1, options.size,
                                   "it is the number of the processes on this machine"));
  }
  if (const auto local_rank = Find(lookup, "LOCAL_RANK")) {
    NESTREC_ASSIGN_OR_RETURN(options.local_rank,
                             Parse("LOCAL_RANK", *local_rank, 0, options.size - 1,
                                   "it counts the processes of this machine from 0 on"));
  }
  options.interface = Find(lookup, "GLOO_SOCKET_IFNAME").value_or("");
  if (Find(lookup, "TORCHELASTIC_USE_AGENT_STORE") == "True") {
    options.agent_has_store = true;
    options.store_prefix =
        absl::StrCat("/worker/attempt_", Find(lookup, "TORCHELASTIC_RESTART_COUNT").value_or("0"));
  }
  return options;
}

}  // namespace nestrec

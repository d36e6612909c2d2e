#include "model/distributed.h"

#include <c10/core/DeviceGuard.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "model/c10d_compat.h"

namespace nestrec {
namespace {

// Small gradients travel together; one of this size fills the network by itself.
constexpr int64_t kBucketElements = 8 << 20;

// How often rank 0 tells those that wait for it that it is still there.
constexpr absl::Duration kBeat = absl::Seconds(2);

std::string Who(const GroupOptions& options) {
  return absl::StrFormat("rank %d of %d", options.rank, options.size);
}

std::string Master(const GroupOptions& options) {
  return absl::StrCat(options.master_address, ":", options.master_port);
}

// The address of this machine from which packets to the master leave: what the others can reach it
// by. The machine's own name, which Gloo would look up, is 127.0.1.1 on a usual Debian.
absl::StatusOr<std::string> LocalAddress(const GroupOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const std::string port = absl::StrCat(options.master_port);
  const int error = getaddrinfo(options.master_address.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat(
        Who(options), ": MASTER_ADDR: '", options.master_address, "' is no address (",
        gai_strerror(error), "); set it to the name or IP address of rank 0's machine"));
  }
  const absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    const int fd = socket(each->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const absl::Cleanup close_socket = [fd] { close(fd); };
    sockaddr_storage local{};
    socklen_t length = sizeof(local);
    char name[NI_MAXHOST];
    // Connecting a datagram socket sends nothing: it only chooses the route.
    if (connect(fd, each->ai_addr, each->ai_addrlen) == 0 &&
        getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&local), length, name, sizeof(name), nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      return std::string(name);
    }
  }
  return absl::UnavailableError(
      absl::StrCat(Who(options), ": MASTER_ADDR: no network leads to ", options.master_address,
                   "; check the address, or name the network with GLOO_SOCKET_IFNAME"));
}

bool IsLoopback(absl::string_view address) {
  return absl::StartsWith(address, "127.") || address == "::1";
}

absl::StatusOr<c10d_compat::StorePtr> OpenStore(const GroupOptions& options, absl::Time deadline) {
  const bool serve = options.rank == 0 && !options.agent_has_store;
  auto store = Guard("", [&]() -> absl::StatusOr<c10d_compat::StorePtr> {
    // Rounded up: libtorch 1.13 counts whole seconds here.
    return c10d_compat::ConnectStore(
        options.master_address, options.master_port, serve,
        absl::ToChronoSeconds(absl::Ceil(deadline - absl::Now(), absl::Seconds(1))));
  });
  if (store.ok()) return store;
  const std::string cause(absl::StripPrefix(store.status().message(), ": "));
  return absl::UnavailableError(
      serve ? absl::StrCat(Who(options), ": MASTER_ADDR, MASTER_PORT: cannot listen at ",
                           Master(options), " (", cause,
                           "); give all ranks an address of this machine and a free port of it")
            : absl::StrCat(
                  Who(options), ": MASTER_ADDR, MASTER_PORT: rank 0 was not reached at ",
                  Master(options), " within ", absl::FormatDuration(options.timeout), " (", cause,
                  "); start rank 0, check both variables, and that no firewall is between"));
}

// Tells the others where this rank is, and asks for theirs: [size] addresses, "" where a rank
// has named its interface.
absl::StatusOr<std::vector<std::string>> ExchangeAddresses(const GroupOptions& options,
                                                           const c10d_compat::StorePtr& store,
                                                           const std::string& own,
                                                           absl::Time deadline) {
  const auto key = [](int rank) { return absl::StrCat("nestrec/address/", rank); };
  NESTREC_ASSIGN_OR_RETURN(
      const int64_t count, Guard("join the group", [&]() -> absl::StatusOr<int64_t> {
        const int64_t count =
            c10d_compat::Count(store, absl::StrCat("nestrec/joined/", options.rank));
        if (count == 1)
          c10d_compat::Set(store, key(options.rank), absl::StrCat(options.size, " ", own));
        return count;
      }));
  if (count > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("RANK: ", options.rank, " is taken by another process at ", Master(options),
                     "; give every process its own RANK, and every run its own MASTER_PORT"));
  }
  std::vector<std::string> addresses;
  for (int rank = 0; rank < options.size; ++rank) {
    const auto value = Guard("wait", [&]() -> absl::StatusOr<std::string> {
      return c10d_compat::Get(
          store, key(rank),
          absl::ToChronoMilliseconds(std::max(deadline - absl::Now(), absl::Milliseconds(1))));
    });
    if (!value.ok()) {
      return absl::UnavailableError(absl::StrCat(
          Who(options), ": rank ", rank, " did not join at ", Master(options), " within ",
          absl::FormatDuration(options.timeout), " (", value.status().message(),
          "); start it, or look for its own error; all ", options.size, " ranks start together"));
    }
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(*value, absl::MaxSplits(' ', 1));
    if (parts.first != absl::StrCat(options.size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("WORLD_SIZE: ", options.size, " here, on rank ", options.rank, ", but ",
                       parts.first, " on rank ", rank, "; give all ranks the same"));
    }
    addresses.emplace_back(parts.second);
  }
  for (int rank = 0; rank < options.size; ++rank) {
    const std::string& address = addresses[static_cast<size_t>(rank)];
    if (own.empty() || address.empty() || IsLoopback(own) == IsLoopback(address)) continue;
    const auto [here, there] =
        IsLoopback(own) ? std::pair(options.rank, rank) : std::pair(rank, options.rank);
    return absl::InvalidArgumentError(absl::StrCat(
        "MASTER_ADDR: '", options.master_address, "' is this machine itself (",
        IsLoopback(own) ? own : address, ") on rank ", here, ", and another one for rank ", there,
        "; set it to the IP address by which the other machines reach rank 0"));
  }
  return addresses;
}

}  // namespace

struct ProcessGroup::Connection {
  c10d_compat::StorePtr store;  // rank 0 serves it to the others: lives as long as the group
  c10d_compat::CollectivesPtr collectives;
  torch::Device device = torch::kCPU;  // where the collectives take their tensors
  std::vector<std::string> addresses;  // [size]

  // Runs `in_place` on `tensor`, on a copy where the collectives want another device or layout.
  template <typename Function>
  void Run(const torch::Tensor& tensor, Function in_place) const {
    const torch::NoGradGuard no_grad;
    // A thread begins with the first device as its current one, which need not be this rank's.
    const c10::OptionalDeviceGuard guard(device.is_cuda() ? c10::optional<torch::Device>(device)
                                                          : c10::nullopt);
    const torch::Tensor plain = tensor.detach();
    const torch::Tensor sent = plain.to(device).contiguous();
    in_place(collectives, sent);
    if (!sent.is_same(plain)) torch::Tensor(plain).copy_(sent);
  }
};

ProcessGroup::ProcessGroup(const GroupOptions& options, std::unique_ptr<Connection> connection)
    : options_(options), connection_(std::move(connection)) {}

ProcessGroup::~ProcessGroup() {
  // After a failure the others may not answer, and the process is about to end.
  if (broken_) return;
  const absl::Status ignored = Guard("leave the group", [this]() -> absl::Status {
    c10d_compat::Close(connection_->collectives);
    return absl::OkStatus();
  });
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const GroupOptions& options) {
  if constexpr (!c10d_compat::kHasGloo) {
    return absl::UnimplementedError(
        absl::StrCat("WORLD_SIZE: ", options.size,
                     ", but this nestrec was built without Gloo and trains with one process; "
                     "install libgloo-dev and build it anew, or unset WORLD_SIZE and RANK"));
  }
  const absl::Time deadline = absl::Now() + options.timeout;
  auto connection = std::make_unique<Connection>();
  std::string own;
  if (options.interface.empty()) {
    NESTREC_ASSIGN_OR_RETURN(own, LocalAddress(options));
  }
  NESTREC_ASSIGN_OR_RETURN(connection->store, OpenStore(options, deadline));
  const absl::Status joined = Guard("connect the ranks", [&]() -> absl::Status {
    if (!options.store_prefix.empty()) {
      connection->store = c10d_compat::WithPrefix(options.store_prefix, connection->store);
    }
    NESTREC_ASSIGN_OR_RETURN(connection->addresses,
                             ExchangeAddresses(options, connection->store, own, deadline));
    const auto timeout = absl::ToChronoMilliseconds(options.timeout);
    if (options.on_cuda && c10d_compat::kHasNccl) {
      connection->device = torch::Device(torch::kCUDA, static_cast<int8_t>(options.local_rank));
      connection->collectives =
          c10d_compat::MakeNccl(connection->store, options.rank, options.size, timeout);
    } else {
      connection->collectives = c10d_compat::MakeGloo(connection->store, options.rank, options.size,
                                                      options.interface, own, timeout);
    }
    return absl::OkStatus();
  });
  if (absl::IsInternal(joined)) {
    return absl::UnavailableError(absl::StrCat(
        Who(options), ": ", joined.message(),
        "; the ranks must reach each other on every port: check firewalls, and the network's name "
        "in GLOO_SOCKET_IFNAME if there are several"));
  }
  NESTREC_RETURN_IF_ERROR(joined);
  return std::unique_ptr<ProcessGroup>(new ProcessGroup(options, std::move(connection)));
}

std::pair<int64_t, int64_t> ProcessGroup::Share(int64_t count) const {
  return {count * rank() / size(), count * (rank() + 1) / size()};
}

absl::Status ProcessGroup::Collective(absl::string_view what, absl::FunctionRef<void()> run) {
  const absl::Status status = Guard("", [&]() -> absl::Status {
    run();
    return absl::OkStatus();
  });
  if (status.ok()) return status;
  broken_.store(true, std::memory_order_relaxed);
  const absl::string_view cause = absl::StripPrefix(status.message(), ": ");
  // Gloo names the peer by its address alone.
  std::vector<int> suspects;
  for (int rank = 0; rank < size(); ++rank) {
    const std::string& address = connection_->addresses[static_cast<size_t>(rank)];
    if (rank != this->rank() && !address.empty() &&
        absl::StrContains(cause, absl::StrCat("[", address, "]"))) {
      suspects.push_back(rank);
    }
  }
  if (size() == 2) suspects = {1 - rank()};
  const std::string lost = suspects.empty() ? "another rank"
                           : suspects.size() == 1
                               ? absl::StrCat("rank ", suspects[0])
                               : absl::StrCat("one of the ranks ", absl::StrJoin(suspects, ", "));
  return absl::UnavailableError(
      absl::StrCat(Who(options_), ", ", what, ": ", lost, " ended or cannot be reached (", cause,
                   "). Its own message says why; start all ranks again, with --resume to go on"));
}

absl::Status ProcessGroup::Sum(absl::string_view what, const at::Tensor& tensor) {
  return Collective(what, [&] { connection_->Run(tensor, c10d_compat::SumInPlace); });
}

absl::Status ProcessGroup::Sum(absl::string_view what, std::span<double> values) {
  return Sum(what, torch::from_blob(values.data(), {static_cast<int64_t>(values.size())},
                                    torch::kFloat64));
}

absl::Status ProcessGroup::ReduceStep(std::span<const at::Tensor> parameters, StepTotals& totals) {
  std::vector<double> values = {static_cast<double>(totals.labelled),
                                totals.loss * static_cast<double>(totals.labelled),
                                static_cast<double>(totals.positions),
                                static_cast<double>(totals.flops), totals.stop ? 1.0 : 0.0};
  const size_t figures = values.size();
  for (const torch::Tensor& parameter : parameters) {
    values.push_back(parameter.grad().defined() ? 1.0 : 0.0);
  }
  const double own = values[0];
  NESTREC_RETURN_IF_ERROR(Sum("sum of a step's figures", std::span(values)));
  const double all = std::max(values[0], 1.0);
  totals = {.labelled = static_cast<int64_t>(values[0]),
            .loss = values[1] / all,
            .positions = static_cast<int64_t>(values[2]),
            .flops = static_cast<int64_t>(values[3]),
            .stop = values[4] > 0};

  std::vector<torch::Tensor> bucket;
  int64_t elements = 0;
  const auto flush = [&]() -> absl::Status {
    if (bucket.empty()) return absl::OkStatus();
    elements = 0;
    return SumFlattened(std::exchange(bucket, {}), own / all);
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (values[figures + i] == 0) continue;
    const torch::Tensor& parameter = parameters[i];
    if (!bucket.empty() && (elements + parameter.numel() > kBucketElements ||
                            parameter.options().dtype() != bucket[0].options().dtype())) {
      NESTREC_RETURN_IF_ERROR(flush());
    }
    bucket.push_back(parameter);
    elements += parameter.numel();
  }
  return flush();
}

// The gradients become views of one tensor that has been summed; a single large one is summed where
// it is.
absl::Status ProcessGroup::SumFlattened(std::span<const at::Tensor> parameters, double weight) {
  constexpr absl::string_view kWhat = "sum of the gradients";
  const torch::NoGradGuard no_grad;
  if (parameters.size() == 1) {
    torch::Tensor& gradient = parameters[0].mutable_grad();
    gradient = gradient.defined() ? gradient.contiguous().mul_(weight)
                                  : torch::zeros_like(parameters[0].detach());
    return Sum(kWhat, gradient);
  }
  int64_t elements = 0;
  for (const torch::Tensor& parameter : parameters) elements += parameter.numel();
  const torch::Tensor flat = torch::empty({elements}, parameters[0].detach().options());
  int64_t begin = 0;
  for (const torch::Tensor& parameter : parameters) {
    torch::Tensor part = flat.narrow(0, begin, parameter.numel()).view(parameter.sizes());
    torch::Tensor& gradient = parameter.mutable_grad();
    if (gradient.defined()) {
      part.copy_(gradient).mul_(weight);
    } else {
      part.zero_();
    }
    gradient = part;
    begin += parameter.numel();
  }
  return Sum(kWhat, flat);
}

absl::Status ProcessGroup::Broadcast(absl::string_view what, std::span<const at::Tensor> tensors) {
  for (const torch::Tensor& tensor : tensors) {
    NESTREC_RETURN_IF_ERROR(
        Collective(what, [&] { connection_->Run(tensor, c10d_compat::BroadcastInPlace); }));
  }
  return absl::OkStatus();
}

absl::Status ProcessGroup::Broadcast(absl::string_view what, std::string& bytes) {
  double length = rank() == 0 ? static_cast<double>(bytes.size()) : 0;
  NESTREC_RETURN_IF_ERROR(Sum(what, std::span(&length, 1)));
  bytes.resize(static_cast<size_t>(length));
  if (bytes.empty()) return absl::OkStatus();
  const torch::Tensor tensor =
      torch::from_blob(bytes.data(), {static_cast<int64_t>(bytes.size())}, torch::kUInt8);
  return Broadcast(what, std::span(&tensor, 1));
}

absl::StatusOr<std::vector<std::string>> ProcessGroup::Gather(absl::string_view what,
                                                              const std::string& bytes) {
  std::vector<double> lengths(static_cast<size_t>(size()));
  lengths[static_cast<size_t>(rank())] = static_cast<double>(bytes.size());
  NESTREC_RETURN_IF_ERROR(Sum(what, std::span(lengths)));
  std::vector<size_t> begins = {0};
  for (const double length : lengths) begins.push_back(begins.back() + static_cast<size_t>(length));
  // Where a rank's bytes stand all others add zeros.
  std::string all(begins.back(), '\0');
  std::memcpy(all.data() + begins[static_cast<size_t>(rank())], bytes.data(), bytes.size());
  if (!all.empty()) {
    NESTREC_RETURN_IF_ERROR(
        Sum(what, torch::from_blob(all.data(), {static_cast<int64_t>(all.size())}, torch::kUInt8)));
  }
  std::vector<std::string> parts;
  for (size_t r = 0; r + 1 < begins.size(); ++r) {
    parts.push_back(all.substr(begins[r], begins[r + 1] - begins[r]));
  }
  return parts;
}

absl::Status ProcessGroup::OnRankZero(absl::string_view what,
                                      absl::FunctionRef<absl::Status()> work, double& result) {
  enum State { kWorking, kDone, kCancelled, kFailed };
  const auto exchange = [&](State own, double& value) -> absl::StatusOr<State> {
    double message[2] = {static_cast<double>(own), value};
    NESTREC_RETURN_IF_ERROR(Sum(what, std::span(message)));
    value = message[1];
    return static_cast<State>(static_cast<int>(message[0]));
  };
  if (rank() != 0) {
    for (;;) {
      double value = 0;
      NESTREC_ASSIGN_OR_RETURN(const State state, exchange(kWorking, value));
      if (state == kWorking) continue;
      if (state == kCancelled) return absl::CancelledError("rank 0 was told to stop");
      if (state == kFailed) {
        return absl::AbortedError(
            absl::StrCat(Who(options_), ", ", what, ": rank 0 failed; its own message says why"));
      }
      result = value;
      return absl::OkStatus();
    }
  }
  std::promise<void> finished;
  absl::Status beating;
  std::thread beat([&] {
    const auto end = finished.get_future();
    while (end.wait_for(absl::ToChronoNanoseconds(std::min(kBeat, options_.timeout / 4))) !=
           std::future_status::ready) {
      double nothing = 0;
      beating = exchange(kWorking, nothing).status();
      if (!beating.ok()) return;
    }
  });
  const absl::Status status = Guard(what, [&] { return work(); });
  finished.set_value();
  beat.join();
  NESTREC_RETURN_IF_ERROR(beating);
  double value = status.ok() ? result : 0;
  const State last = status.ok() ? kDone : absl::IsCancelled(status) ? kCancelled : kFailed;
  const absl::Status told = exchange(last, value).status();
  return status.ok() ? told : status;
}

}  // namespace nestrec

// What differs between the releases of torch's distributed package that nestrec is built with
// (libtorch 1.13 to 2.9), and between builds of it, in one place. Only model/distributed.cc
// includes it. Gloo carries collectives between processors, NCCL between NVIDIA devices; kHasGloo
// and kHasNccl say what this libtorch, and the headers beside it, can do.
//
// Everything here throws as libtorch does.
#pragma once

#include <torch/types.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if defined(USE_C10D_GLOO) && __has_include(<gloo/rendezvous/store.h>)
#define NESTREC_HAS_GLOO 1
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#if defined(USE_C10D_NCCL) && __has_include(<nccl.h>)
#define NESTREC_HAS_NCCL 1
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#endif

namespace nestrec::c10d_compat {

#ifdef NESTREC_HAS_NCCL
inline constexpr bool kHasNccl = true;
#else
inline constexpr bool kHasNccl = false;
#endif

#ifdef NESTREC_HAS_GLOO

inline constexpr bool kHasGloo = true;

// What ProcessGroupGloo is derived from: c10d::ProcessGroup up to 1.13, c10d::Backend since.
using Collectives = std::conditional_t<std::is_base_of_v<::c10d::Backend, ::c10d::ProcessGroupGloo>,
                                       ::c10d::Backend, ::c10d::ProcessGroup>;
using CollectivesPtr = c10::intrusive_ptr<Collectives>;
using StorePtr = c10::intrusive_ptr<::c10d::Store>;

// From 2.4 on the store's server runs on libuv unless told otherwise, which distributions may have
// left out.
template <typename StoreOptions>
void AvoidLibUv(StoreOptions& options) {
  if constexpr (requires { options.useLibUV = false; }) options.useLibUV = false;
}

// The key-value store by which the processes find each other; does not wait for all of them.
inline StorePtr ConnectStore(const std::string& host, int port, bool serve,
                             std::chrono::milliseconds timeout) {
  ::c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = timeout;
  AvoidLibUv(options);
  return c10::make_intrusive<::c10d::TCPStore>(host, options);
}

inline StorePtr WithPrefix(const std::string& prefix, const StorePtr& store) {
  return c10::make_intrusive<::c10d::PrefixStore>(prefix, store);
}

inline void Set(const StorePtr& store, const std::string& key, const std::string& value) {
  store->set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

// Waits for the key.
inline std::string Get(const StorePtr& store, const std::string& key,
                       std::chrono::milliseconds timeout) {
  store->wait({key}, timeout);
  const std::vector<uint8_t> value = store->get(key);
  return std::string(value.begin(), value.end());
}

// The count so far, this one included.
inline int64_t Count(const StorePtr& store, const std::string& key) { return store->add(key, 1); }

// `interface`, or where it is empty the one that has `address`, carries the traffic.
inline CollectivesPtr MakeGloo(const StorePtr& store, int rank, int size,
                               const std::string& interface, const std::string& address,
                               std::chrono::milliseconds timeout) {
  auto options = ::c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(interface.empty()
                                 ? ::c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                 : ::c10d::ProcessGroupGloo::createDeviceForInterface(interface));
  return c10::make_intrusive<::c10d::ProcessGroupGloo>(store, rank, size, options);
}

inline CollectivesPtr MakeNccl([[maybe_unused]] const StorePtr& store, [[maybe_unused]] int rank,
                               [[maybe_unused]] int size,
                               [[maybe_unused]] std::chrono::milliseconds timeout) {
#ifdef NESTREC_HAS_NCCL
  // Makes a wait throw at its timeout; otherwise NCCL's watchdog would end the process without a
  // message of ours. The variable's name up to 2.1, and since.
  setenv("NCCL_BLOCKING_WAIT", "1", /*overwrite=*/0);
  setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*overwrite=*/0);
  auto options = ::c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<::c10d::ProcessGroupNCCL>(store, rank, size, options);
#else
  throw std::runtime_error("this libtorch has no NCCL");
#endif
}

// From 2.5 on a group wants to be told of its end.
template <typename Group>
void Shutdown(Group& group) {
  if constexpr (requires { group.shutdown(); }) group.shutdown();
}

// Frees NCCL's communicators while CUDA is still there; otherwise it complains at the end of the
// process. Of no use afterwards.
inline void Close([[maybe_unused]] const CollectivesPtr& collectives) {
#ifdef NESTREC_HAS_NCCL
  if (auto* nccl = dynamic_cast<::c10d::ProcessGroupNCCL*>(collectives.get())) Shutdown(*nccl);
#endif
}

// In place; returns when it is done.
inline void SumInPlace(const CollectivesPtr& collectives, const torch::Tensor& tensor) {
  std::vector<torch::Tensor> tensors = {tensor};
  collectives->allreduce(tensors)->wait();
}

// Rank 0's values; likewise.
inline void BroadcastInPlace(const CollectivesPtr& collectives, const torch::Tensor& tensor) {
  std::vector<torch::Tensor> tensors = {tensor};
  collectives->broadcast(tensors)->wait();
}

#else  // no process group is ever made

inline constexpr bool kHasGloo = false;

struct Nothing {};
using CollectivesPtr = Nothing;
using StorePtr = Nothing;
[[noreturn]] inline void Fail() { throw std::logic_error("built without Gloo"); }
inline StorePtr ConnectStore(const std::string&, int, bool, std::chrono::milliseconds) { Fail(); }
inline StorePtr WithPrefix(const std::string&, const StorePtr&) { Fail(); }
inline void Set(const StorePtr&, const std::string&, const std::string&) { Fail(); }
inline std::string Get(const StorePtr&, const std::string&, std::chrono::milliseconds) { Fail(); }
inline int64_t Count(const StorePtr&, const std::string&) { Fail(); }
inline CollectivesPtr MakeGloo(const StorePtr&, int, int, const std::string&, const std::string&,
                               std::chrono::milliseconds) {
  Fail();
}
inline CollectivesPtr MakeNccl(const StorePtr&, int, int, std::chrono::milliseconds) { Fail(); }
inline void Close(const CollectivesPtr&) {}
inline void SumInPlace(const CollectivesPtr&, const torch::Tensor&) { Fail(); }
inline void BroadcastInPlace(const CollectivesPtr&, const torch::Tensor&) { Fail(); }

#endif  // NESTREC_HAS_GLOO

}  // namespace nestrec::c10d_compat

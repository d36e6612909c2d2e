#include "model/torch_device.h"

#include <ATen/Context.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/cuda.h>

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/guard.h"

namespace nestrec {
namespace {

constexpr char kOrTheProcessor[] = ", or use --device cpu";

// Why a libtorch with CUDA has no device: what it says when it is made to look for one.
std::string WhyNoDevice() {
  const absl::Status status = Guard("", []() -> absl::Status {
    torch::empty({1}, torch::kCUDA);
    return absl::OkStatus();
  });
  absl::string_view cause = absl::StripPrefix(status.message(), ": ");
  absl::ConsumeSuffix(&cause, ".");
  return std::string(cause);
}

}  // namespace

absl::Status CheckDevice(DeviceKind kind, int local_rank) {
  if (kind == DeviceKind::kCpu) return absl::OkStatus();
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--device cuda: this nestrec was built with a libtorch that has no CUDA; build it with one "
        "that has (-DTorch_ROOT names its folder, see docs/training.md)",
        kOrTheProcessor));
  }
  return Guard("--device cuda", [local_rank]() -> absl::Status {
    const int devices =
        torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
    if (devices == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("--device cuda: libtorch sees no NVIDIA device (", WhyNoDevice(),
                       "); see what nvidia-smi says, and CUDA_VISIBLE_DEVICES", kOrTheProcessor));
    }
    if (local_rank < devices) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "--device cuda: LOCAL_RANK is ", local_rank, ", but this machine has ", devices,
        " NVIDIA devices, one for each process; start at most so many here", kOrTheProcessor));
  });
}

absl::Status WithMemoryCure(const absl::Status& status) {
  if (!absl::StrContains(status.message(), "CUDA out of memory")) return status;
  return absl::ResourceExhaustedError(absl::StrCat(
      status.message(),
      "; lower --batch-size or --dim, score fewer items with --sampled-items, share the work among "
      "devices, one process each",
      kOrTheProcessor));
}

torch::Device TorchDevice(DeviceKind kind, int local_rank) {
  return kind == DeviceKind::kCpu
             ? torch::Device(torch::kCPU)
             : torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(local_rank));
}

std::string GeneratorState(const torch::Device& device) {
  const torch::Tensor state = at::globalContext().defaultGenerator(device).get_state().contiguous();
  return std::string(static_cast<const char*>(state.data_ptr()), state.nbytes());
}

void SetGeneratorState(const torch::Device& device, const std::string& bytes) {
  const torch::Tensor state = torch::empty({static_cast<int64_t>(bytes.size())}, torch::kUInt8);
  std::memcpy(state.data_ptr(), bytes.data(), bytes.size());
  at::Generator generator = at::globalContext().defaultGenerator(device);
  generator.set_state(state);
}

}  // namespace nestrec

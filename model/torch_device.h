// A training device as libtorch names it. Needs no CUDA headers: without CUDA, libtorch has the
// functions too, and CheckDevice refuses the device before they are asked for it.
//
// Errors are thrown as libtorch does. Thread safety: as libtorch's random generators.
#pragma once

#include <torch/types.h>

#include <string>

#include "absl/status/status.h"
#include "model/device.h"

namespace nestrec {

// Of a device that ran out of memory kResourceExhausted with the cure; else `status` itself.
absl::Status WithMemoryCure(const absl::Status& status);

// REQUIRES: CheckDevice says that it is there.
torch::Device TorchDevice(DeviceKind kind, int local_rank);

// The generator that draws dropout masks on `device`, as bytes.
std::string GeneratorState(const torch::Device& device);
void SetGeneratorState(const torch::Device& device, const std::string& bytes);

}  // namespace nestrec

// An NVIDIA device for tests where there is none: linked into a program with a libtorch without
// CUDA, it registers what such a libtorch lacks. The device computes on the processor, by
// libtorch's own fallback, operation by operation; so it gives the processor's numbers.
//
// Its memory cannot be touched from the host, as a real one's: a pointer of a device tensor lies in
// pages without any access, so that the first element that is read or written ends the process.
// Tensors of both kinds in one operation fail as on a device.
#pragma once

#include <cstdint>

namespace nestrec {

inline constexpr int kFakeCudaDevices = 2;

// Operations that the device has done so far. Thread safety: any thread.
int64_t FakeCudaOperations();

// The most memory that the device gives out from now on; more is refused in CUDA's words.
void LimitFakeCudaMemory(int64_t bytes);

}  // namespace nestrec

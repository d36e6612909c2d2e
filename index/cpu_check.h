// Whether this machine can run the FAISS that nestrec was linked with. A build for AVX2 would stop
// with an illegal instruction on a processor without it; programs call CheckCpu first and say so
// instead.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nestrec {

// The instruction set that FAISS was compiled for: "generic", "avx2" or "avx512".
absl::string_view FaissInstructionSet();

// kFailedPrecondition, naming what is missing and the cure, when the processor lacks it.
absl::Status CheckCpu();

// What CheckCpu decides by.
struct CpuFeatures {
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, CD, VL, DQ and BW
};
absl::Status CheckCpu(absl::string_view instruction_set, const CpuFeatures& features);

}  // namespace nestrec

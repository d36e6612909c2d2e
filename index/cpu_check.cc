#include "index/cpu_check.h"

#include "absl/strings/str_cat.h"

#ifndef NESTREC_FAISS_ISA
#define NESTREC_FAISS_ISA "generic"
#endif

namespace nestrec {
namespace {

CpuFeatures ThisCpu() {
  CpuFeatures features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512bw");
#endif
  return features;
}

}  // namespace

absl::string_view FaissInstructionSet() { return NESTREC_FAISS_ISA; }

absl::Status CheckCpu() { return CheckCpu(FaissInstructionSet(), ThisCpu()); }

absl::Status CheckCpu(absl::string_view instruction_set, const CpuFeatures& features) {
  const bool can_run = instruction_set == "avx512" ? features.avx512 && features.avx2
                       : instruction_set == "avx2" ? features.avx2
                                                   : true;
  if (can_run) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "this program's FAISS was built for ", instruction_set,
      ", which this processor does not have; build nestrec on this machine, or configure it with "
      "-DNESTREC_FAISS=system"));
}

}  // namespace nestrec

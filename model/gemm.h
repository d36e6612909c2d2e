// Matrix products for training, row-major: C [m, n] = alpha op(A) op(B) + beta C.
//
// float: oneDNN where it is faster (its kernels are chosen at run time for the processor's vector
// units, AVX-512 included, which OpenBLAS misses on processors that are newer than it is),
// OpenBLAS elsewhere; see GemmBackend(). double: OpenBLAS.
//
// Runs on OpenMP's threads. Results depend on the number of threads and on the processor, not on
// the run. Thread safety: as OpenMP: calls from several threads each bring their own team.
#pragma once

#include <cstdint>

namespace nestrec {

enum class Op { kNone, kTranspose };

// A is [m, k] (kTranspose: [k, m]) with rows `lda` apart, B is [k, n] (kTranspose: [n, k]).
// With beta 0, C may hold anything before. Any of m, n, k may be 0.
void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

// "oneDNN" or "OpenBLAS": what multiplies floats on this machine.
const char* GemmBackend();

}  // namespace nestrec

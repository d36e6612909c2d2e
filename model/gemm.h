// Matrix products for training, row-major: C [m, n] = op(A) op(B) + beta C.
//
// float: oneDNN where it is faster (its kernels are chosen at run time for the processor's vector
// units, AVX-512 included, which OpenBLAS misses on processors that are newer than it is),
// OpenBLAS elsewhere; see GemmBackend(). double: OpenBLAS.
//
// oneDNN's kernels use the stack's register for work space of their own: a signal handler that may
// run during a product needs a stack of its own (SA_ONSTACK), or it writes into the heap.
//
// Runs on OpenMP's threads. Results depend on the number of threads and on the processor, not on
// the run. Thread safety: as OpenMP: calls from several threads each bring their own team.
#pragma once

#include <cstdint>

namespace nestrec {

enum class Op { kNone, kTranspose };

// A is [m, k] (kTranspose: [k, m]) with rows `lda` apart, B is [k, n] (kTranspose: [n, k]).
// With beta 0, C may hold anything before. Any of m, n, k may be 0.
void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda,
          const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

// What the operands of a product are rounded to; sums are always float.
enum class Precision { kFloat32, kBfloat16 };

// Whether this machine multiplies bfloat16 in hardware (AVX-512 BF16).
bool HasBfloat16();

// bfloat16 as bits: the upper half of a float.
using Bfloat16 = uint16_t;

// `half` = `values`, rounded to nearest; rows of `values` lie `stride` apart, those of `half`
// `columns`.
void RoundToBfloat16(const float* values, int64_t rows, int64_t columns, int64_t stride,
                     Bfloat16* half);

// A float matrix, and its rounded copy where the caller has one: `half`, rows `columns` apart.
struct HalfOperand {
  const float* values;
  int64_t stride;
  const Bfloat16* half = nullptr;
  int64_t half_stride = 0;
};

// As Gemm, with both operands rounded to bfloat16 first. REQUIRES: HasBfloat16().
void GemmBfloat16(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const HalfOperand& a,
                  const HalfOperand& b, float beta, float* c, int64_t ldc);

// "oneDNN" or "OpenBLAS": what multiplies floats on this machine.
const char* GemmBackend();

}  // namespace nestrec

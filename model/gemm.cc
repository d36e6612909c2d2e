#include "model/gemm.h"

#include <cblas.h>
#include <dnnl.h>
#include <omp.h>

#include <algorithm>
#include <memory>

#include "model/onednn_compat.h"

namespace nestrec {
namespace {

bool HasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

// oneDNN's AVX-512 kernels reach twice the speed of OpenBLAS 0.3.21's on processors that the latter
// does not know. On AVX2 the two are even, and elsewhere oneDNN may have plain loops only.
const bool use_onednn = HasAvx512();

// What is left of C when there is nothing to add up.
template <typename T>
void Scale(int64_t m, int64_t n, T beta, T* c, int64_t ldc) {
  for (int64_t row = 0; row < m; ++row) {
    T* values = c + row * ldc;
    if (beta == T{0}) {
      std::fill_n(values, n, T{0});
    } else {
      std::transform(values, values + n, values, [beta](T value) { return beta * value; });
    }
  }
}

CBLAS_TRANSPOSE CblasOp(Op op) { return op == Op::kTranspose ? CblasTrans : CblasNoTrans; }

char DnnlOp(Op op) { return op == Op::kTranspose ? 'T' : 'N'; }

constexpr int64_t kLeastShare = 64;  // rows or columns of C that are worth a thread
constexpr int64_t kShareMultiple = 16;

// oneDNN on one thread per share of C's longer side: its own division of the work leaves up to a
// third of the time unused where one side of C is short, as a batch of positions is.
bool OneDnnGemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const bool by_rows = m >= n;
  const int64_t side = by_rows ? m : n;
  const auto multiply = [&](int64_t begin, int64_t end) {
    if (by_rows) {
      return dnnl_sgemm(DnnlOp(op_a), DnnlOp(op_b), end - begin, n, k, 1.0f,
                        a + begin * (op_a == Op::kTranspose ? 1 : lda), lda, b, ldb, beta,
                        c + begin * ldc, ldc) == dnnl_success;
    }
    return dnnl_sgemm(DnnlOp(op_a), DnnlOp(op_b), m, end - begin, k, 1.0f, a, lda,
                      b + begin * (op_b == Op::kTranspose ? ldb : 1), ldb, beta, c + begin,
                      ldc) == dnnl_success;
  };
  // A team of another size than the last one's would cost OpenMP new threads: all or none.
  if (omp_in_parallel() || omp_get_max_threads() == 1 || side < 2 * kLeastShare) {
    return multiply(0, side);
  }
  bool failed = false;
#pragma omp parallel reduction(|| : failed)
  {
    const int64_t shares = std::min<int64_t>(omp_get_num_threads(), side / kLeastShare);
    const int64_t share = omp_get_thread_num();
    const auto bound = [&](int64_t of) {
      return of == shares ? side : side * of / shares / kShareMultiple * kShareMultiple;
    };
    if (share < shares) failed = !multiply(bound(share), bound(share + 1));
  }
  return !failed;
}

}  // namespace

void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return Scale(m, n, beta, c, ldc);
  if (use_onednn && OneDnnGemm(op_a, op_b, m, n, k, a, lda, b, ldb, beta, c, ldc)) return;
  cblas_sgemm(CblasRowMajor, CblasOp(op_a), CblasOp(op_b), static_cast<blasint>(m),
              static_cast<blasint>(n), static_cast<blasint>(k), 1.0f, a, static_cast<blasint>(lda),
              b, static_cast<blasint>(ldb), beta, c, static_cast<blasint>(ldc));
}

void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const double* a, int64_t lda,
          const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return Scale(m, n, beta, c, ldc);
  cblas_dgemm(CblasRowMajor, CblasOp(op_a), CblasOp(op_b), static_cast<blasint>(m),
              static_cast<blasint>(n), static_cast<blasint>(k), 1.0, a, static_cast<blasint>(lda),
              b, static_cast<blasint>(ldb), beta, c, static_cast<blasint>(ldc));
}

bool HasBfloat16() {
#if defined(__x86_64__)
  return HasAvx512() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

void RoundToBfloat16(const float* values, int64_t rows, int64_t columns, int64_t stride,
                     Bfloat16* half) {
  using dnnl::memory;
  const memory::desc source({rows, columns}, memory::data_type::f32, memory::dims{stride, 1});
  const memory::desc target({rows, columns}, memory::data_type::bf16, memory::dims{columns, 1});
  memory from(source, OneDnnEngine(), const_cast<float*>(values));  // only read
  memory to(target, OneDnnEngine(), half);
  dnnl::reorder(from, to).execute(OneDnnStream(), from, to);
  OneDnnStream().wait();
}

void GemmBfloat16(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const HalfOperand& a,
                  const HalfOperand& b, float beta, float* c, int64_t ldc) {
  using dnnl::memory;
  if (m == 0 || n == 0) return;
  if (k == 0) return Scale(m, n, beta, c, ldc);
  std::unique_ptr<Bfloat16[]> rounded_a;
  std::unique_ptr<Bfloat16[]> rounded_b;
  // The operand as oneDNN sees it: [rows, columns] after `op`.
  const auto operand = [](Op op, int64_t rows, int64_t columns, const HalfOperand& matrix,
                          std::unique_ptr<Bfloat16[]>& rounded) {
    const int64_t stored_rows = op == Op::kTranspose ? columns : rows;
    const int64_t stored_columns = op == Op::kTranspose ? rows : columns;
    const Bfloat16* half = matrix.half;
    int64_t stride = matrix.half_stride;
    if (half == nullptr) {
      rounded = std::make_unique_for_overwrite<Bfloat16[]>(static_cast<size_t>(rows * columns));
      RoundToBfloat16(matrix.values, stored_rows, stored_columns, matrix.stride, rounded.get());
      half = rounded.get();
      stride = stored_columns;
    }
    return memory({{rows, columns},
                   memory::data_type::bf16,
                   op == Op::kTranspose ? memory::dims{1, stride} : memory::dims{stride, 1}},
                  OneDnnEngine(), const_cast<Bfloat16*>(half));  // only read
  };
  const memory left = operand(op_a, m, k, a, rounded_a);
  const memory right = operand(op_b, k, n, b, rounded_b);
  const memory result({{m, n}, memory::data_type::f32, memory::dims{ldc, 1}}, OneDnnEngine(), c);
  dnnl::primitive_attr attributes;
  if (beta != 0.0f) {
    dnnl::post_ops sum;
    sum.append_sum(beta);
    attributes.set_post_ops(sum);
  }
  dnnl::matmul(MatmulDescriptor(left.get_desc(), right.get_desc(), result.get_desc(), attributes))
      .execute(OneDnnStream(),
               {{DNNL_ARG_SRC, left}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, result}});
  OneDnnStream().wait();
}

const char* GemmBackend() { return use_onednn ? "oneDNN" : "OpenBLAS"; }

}  // namespace nestrec

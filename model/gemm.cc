#include "model/gemm.h"

#include <cblas.h>
#include <dnnl.h>
#include <omp.h>

#include <algorithm>

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
bool OneDnnGemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const bool by_rows = m >= n;
  const int64_t side = by_rows ? m : n;
  const auto multiply = [&](int64_t begin, int64_t end) {
    if (by_rows) {
      return dnnl_sgemm(DnnlOp(op_a), DnnlOp(op_b), end - begin, n, k, alpha,
                        a + begin * (op_a == Op::kTranspose ? 1 : lda), lda, b, ldb, beta,
                        c + begin * ldc, ldc) == dnnl_success;
    }
    return dnnl_sgemm(DnnlOp(op_a), DnnlOp(op_b), m, end - begin, k, alpha, a, lda,
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

void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return Scale(m, n, beta, c, ldc);
  if (use_onednn && OneDnnGemm(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)) return;
  cblas_sgemm(CblasRowMajor, CblasOp(op_a), CblasOp(op_b), static_cast<blasint>(m),
              static_cast<blasint>(n), static_cast<blasint>(k), alpha, a, static_cast<blasint>(lda),
              b, static_cast<blasint>(ldb), beta, c, static_cast<blasint>(ldc));
}

void Gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  if (k == 0) return Scale(m, n, beta, c, ldc);
  cblas_dgemm(CblasRowMajor, CblasOp(op_a), CblasOp(op_b), static_cast<blasint>(m),
              static_cast<blasint>(n), static_cast<blasint>(k), alpha, a, static_cast<blasint>(lda),
              b, static_cast<blasint>(ldb), beta, c, static_cast<blasint>(ldc));
}

const char* GemmBackend() { return use_onednn ? "oneDNN" : "OpenBLAS"; }

}  // namespace nestrec

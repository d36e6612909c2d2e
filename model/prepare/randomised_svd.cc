#include "model/prepare/randomised_svd.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/random.h"
#include "base/status_macros.h"

// LAPACK's Fortran interface, which OpenBLAS carries. The lengths of character arguments that a
// Fortran compiler passes at the end may be left out for one-letter arguments of routines that
// never read them.
extern "C" {
void sgelqf_(const int* m, const int* n, float* a, const int* lda, float* tau, float* work,
             const int* lwork, int* info);
void sorglq_(const int* m, const int* n, const int* k, float* a, const int* lda, const float* tau,
             float* work, const int* lwork, int* info);
void dsyev_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
            double* work, const int* lwork, int* info);
}

namespace nestrec {
namespace {

constexpr int64_t kOversampling = 16;
// Singular values below this part of the largest are noise of float32.
constexpr double kSmallestPart = 1e-5;

// OpenBLAS with one thread while this lives. The factorisations make thousands of small calls:
// waiting for a second thread costs more than it brings, and the result must not depend on the
// number of cores.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

// Row-major [rows, columns].
struct Dense {
  Dense(int64_t rows, int64_t columns)
      : rows(rows), columns(columns), values(static_cast<size_t>(rows * columns)) {}
  float* row(int64_t r) { return values.data() + r * columns; }
  const float* row(int64_t r) const { return values.data() + r * columns; }
  int64_t rows;
  int64_t columns;
  std::vector<float> values;
};

// A X: [rows, l] of X [columns, l].
Dense Multiply(const SparseMatrix& a, const Dense& x) {
  Dense y(a.rows, x.columns);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t i = a.row_begin[r]; i < a.row_begin[r + 1]; ++i) {
      cblas_saxpy(static_cast<int>(x.columns), a.value[i], x.row(a.column[i]), 1, y.row(r), 1);
    }
  }
  return y;
}

// A^T X: [columns, l] of X [rows, l].
Dense MultiplyTransposed(const SparseMatrix& a, const Dense& x) {
  Dense y(a.columns, x.columns);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t i = a.row_begin[r]; i < a.row_begin[r + 1]; ++i) {
      cblas_saxpy(static_cast<int>(x.columns), a.value[i], x.row(r), 1, y.row(a.column[i]), 1);
    }
  }
  return y;
}

// Replaces x [m, l], m >= l, by Q of x = Q R, and returns L = R^T, lower triangular, [l, l]
// column-major. To LAPACK a row-major matrix is its transpose: the QR factors of x are the LQ
// factors of what it sees.
absl::StatusOr<std::vector<double>> Orthonormalise(Dense& x) {
  const int l = static_cast<int>(x.columns);
  const int m = static_cast<int>(x.rows);
  std::vector<float> tau(static_cast<size_t>(l));
  float wanted[2] = {0, 0};
  const int query = -1;
  int info = 0;
  sgelqf_(&l, &m, x.values.data(), &l, tau.data(), &wanted[0], &query, &info);
  sorglq_(&l, &m, &l, x.values.data(), &l, tau.data(), &wanted[1], &query, &info);
  const int work_size = std::max({static_cast<int>(wanted[0]), static_cast<int>(wanted[1]), l});
  std::vector<float> work(static_cast<size_t>(work_size));
  sgelqf_(&l, &m, x.values.data(), &l, tau.data(), work.data(), &work_size, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("LAPACK's sgelqf failed with ", info));
  std::vector<double> lower(static_cast<size_t>(l) * static_cast<size_t>(l));
  for (int column = 0; column < l; ++column) {
    for (int row = column; row < l; ++row) {
      lower[static_cast<size_t>(column) * l + row] =
          x.values[static_cast<size_t>(column) * l + row];
    }
  }
  sorglq_(&l, &m, &l, x.values.data(), &l, tau.data(), work.data(), &work_size, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("LAPACK's sorglq failed with ", info));
  return lower;
}

// Eigenvectors of L^T L (the left singular vectors of R = L^T), largest value first.
struct Eigen {
  std::vector<double> values;   // [l], squared singular values
  std::vector<double> vectors;  // [l, l], vector i in row i
};

absl::StatusOr<Eigen> DecomposeTriangle(const std::vector<double>& lower, int l) {
  std::vector<double> gram(lower.size());
  cblas_dsyrk(CblasColMajor, CblasUpper, CblasTrans, l, l, 1.0, lower.data(), l, 0.0, gram.data(),
              l);
  std::vector<double> rising(static_cast<size_t>(l));
  double wanted = 0;
  int query = -1;
  int info = 0;
  dsyev_("V", "U", &l, gram.data(), &l, rising.data(), &wanted, &query, &info);
  const int work_size = std::max(static_cast<int>(wanted), 3 * l);
  std::vector<double> work(static_cast<size_t>(work_size));
  dsyev_("V", "U", &l, gram.data(), &l, rising.data(), work.data(), &work_size, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("LAPACK's dsyev failed with ", info));
  Eigen eigen;
  for (int i = l - 1; i >= 0; --i) {
    eigen.values.push_back(std::max(rising[static_cast<size_t>(i)], 0.0));
    const double* vector = gram.data() + static_cast<size_t>(i) * l;
    eigen.vectors.insert(eigen.vectors.end(), vector, vector + l);
  }
  return eigen;
}

void FixSign(RightSingularVectors& svd, int64_t columns, int64_t width, int64_t vector) {
  float largest = 0;
  for (int64_t t = 0; t < columns; ++t) {
    const float value = svd.vectors[t * width + vector];
    if (std::abs(value) > std::abs(largest)) largest = value;
  }
  if (largest >= 0) return;
  for (int64_t t = 0; t < columns; ++t) svd.vectors[t * width + vector] *= -1;
}

absl::StatusOr<RightSingularVectors> Compute(const SparseMatrix& matrix, int64_t width,
                                             int power_iterations, uint64_t seed) {
  const int64_t l = std::min({width + kOversampling, matrix.rows, matrix.columns});
  if (std::max(matrix.rows, matrix.columns) * l > std::numeric_limits<int>::max()) {
    return absl::ResourceExhaustedError(
        absl::StrCat(matrix.rows, " rows or ", matrix.columns, " columns by ", l,
                     " are more than LAPACK's index holds; choose a smaller width"));
  }
  const OneThread one_thread;
  Random random(seed);
  Dense basis(matrix.columns, l);  // of the row space
  for (float& value : basis.values) value = static_cast<float>(random.Normal());
  std::vector<double> lower;
  for (int iteration = 0; iteration <= power_iterations; ++iteration) {
    Dense image = Multiply(matrix, basis);
    NESTREC_RETURN_IF_ERROR(Orthonormalise(image).status());
    basis = MultiplyTransposed(matrix, image);
    NESTREC_ASSIGN_OR_RETURN(lower, Orthonormalise(basis));
  }
  // Now A^T Q = basis R, with Q spanning A's leading column space and R = L^T: the right singular
  // vectors are basis times the left singular vectors of R.
  NESTREC_ASSIGN_OR_RETURN(const Eigen eigen, DecomposeTriangle(lower, static_cast<int>(l)));
  RightSingularVectors svd;
  svd.values.resize(static_cast<size_t>(width));
  svd.vectors.resize(static_cast<size_t>(matrix.columns * width));
  const double largest = std::sqrt(eigen.values.front());
  while (svd.rank < std::min(width, l) &&
         std::sqrt(eigen.values[svd.rank]) > kSmallestPart * largest) {
    svd.values[svd.rank] = static_cast<float>(std::sqrt(eigen.values[svd.rank]));
    ++svd.rank;
  }
  if (svd.rank == 0) return svd;
  const std::vector<float> rotation(eigen.vectors.begin(),
                                    eigen.vectors.begin() + svd.rank * l);  // [rank, l]
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(matrix.columns),
              static_cast<int>(svd.rank), static_cast<int>(l), 1.0F, basis.values.data(),
              static_cast<int>(l), rotation.data(), static_cast<int>(l), 0.0F, svd.vectors.data(),
              static_cast<int>(width));
  for (int64_t vector = 0; vector < svd.rank; ++vector) FixSign(svd, matrix.columns, width, vector);
  return svd;
}

}  // namespace

absl::StatusOr<RightSingularVectors> RandomisedSvd(const SparseMatrix& matrix, int64_t width,
                                                   int power_iterations, uint64_t seed) {
  if (width < 1)
    return absl::InvalidArgumentError(
        absl::StrCat("the width is ", width, "; it must be at least 1"));
  if (matrix.rows < 1 || matrix.columns < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ", matrix.rows, " x ", matrix.columns, " matrix has no singular vectors"));
  }
  return Guard("singular value decomposition", [&]() -> absl::StatusOr<RightSingularVectors> {
    return Compute(matrix, width, power_iterations, seed);
  });
}

}  // namespace nestrec

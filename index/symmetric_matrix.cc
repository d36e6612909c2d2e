#include "index/symmetric_matrix.h"

#include <cblas.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

extern "C" {
// LAPACK, column-major. A row-major lower triangle is a column-major upper one.
void dpstrf_(const char* uplo, const int* n, double* a, const int* lda, int* piv, int* rank,
             const double* tol, double* work, int* info);
void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
             double* work, const int* lwork, int* iwork, const int* liwork, int* info);
}

namespace nestrec {

void AddSecondMoments(std::span<const double> rows, int64_t dim, double scale,
                      std::span<double> moments) {
  const int64_t n = static_cast<int64_t>(rows.size()) / dim;
  cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, static_cast<int>(dim), static_cast<int>(n),
              scale, rows.data(), static_cast<int>(dim), 1.0, moments.data(),
              static_cast<int>(dim));
}

void MirrorLower(int64_t dim, std::span<double> matrix) {
  for (int64_t r = 0; r < dim; ++r) {
    for (int64_t c = r + 1; c < dim; ++c) matrix[r * dim + c] = matrix[c * dim + r];
  }
}

absl::StatusOr<std::vector<double>> Eigen(std::vector<double>& matrix, int dim) {
  std::vector<double> values(static_cast<size_t>(dim));
  int info = 0;
  int lwork = -1;
  int liwork = -1;
  double work_size = 0;
  int iwork_size = 0;
  dsyevd_("V", "U", &dim, matrix.data(), &dim, values.data(), &work_size, &lwork, &iwork_size,
          &liwork, &info);
  lwork = static_cast<int>(work_size);
  liwork = iwork_size;
  std::vector<double> work(static_cast<size_t>(std::max(1, lwork)));
  std::vector<int> iwork(static_cast<size_t>(std::max(1, liwork)));
  dsyevd_("V", "U", &dim, matrix.data(), &dim, values.data(), work.data(), &lwork, iwork.data(),
          &liwork, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("dsyevd failed with ", info));
  return values;
}

int PivotedRank(std::vector<double>& matrix, int dim, double left) {
  std::vector<int> pivots(static_cast<size_t>(dim));
  std::vector<double> work(2 * static_cast<size_t>(dim));
  int rank = 0;
  int info = 0;  // above 0 says that the rank is not full, below 0 that an argument is none
  dpstrf_("U", &dim, matrix.data(), &dim, pivots.data(), &rank, &left, work.data(), &info);
  return info < 0 ? dim : rank;
}

}  // namespace nestrec

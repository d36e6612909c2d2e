#include "index/nested_transform.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "index/blas_room.h"
#include "index/symmetric_matrix.h"
#include "index/vector_kernels.h"

extern "C" {
// LAPACK, column-major. A row-major lower triangle is a column-major upper one.
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda,
             int* info);
}

namespace nestrec {
namespace {

using Matrix = std::vector<double>;  // row-major

// Tells how far the sample is trusted: the share of the mean variance that is added to all columns.
double RidgeOf(int64_t rows, int64_t dim) {
  return std::max(1e-7, 1e-3 * static_cast<double>(dim) / static_cast<double>(rows));
}

Matrix SecondMoments(std::span<const double> rows, int64_t dim) {
  const int64_t n = static_cast<int64_t>(rows.size()) / dim;
  Matrix moments(static_cast<size_t>(dim * dim));
  AddSecondMoments(rows, dim, 1.0 / static_cast<double>(n), moments);
  MirrorLower(dim, moments);
  return moments;
}

absl::Status Cholesky(Matrix& a, int dim) {
  int info = 0;
  dpotrf_("U", &dim, a.data(), &dim, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("dpotrf failed with ", info));
  for (int64_t r = 0; r < dim; ++r) std::fill_n(a.begin() + r * dim + r + 1, dim - r - 1, 0.0);
  return absl::OkStatus();
}

absl::Status InvertTriangle(Matrix& a, int dim) {
  int info = 0;
  dtrtri_("U", "N", &dim, a.data(), &dim, &info);
  if (info != 0) return absl::InternalError(absl::StrCat("dtrtri failed with ", info));
  return absl::OkStatus();
}

// c[m, n] = a[m, k] b[k, n], each with its own distance between rows.
void Multiply(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b,
              int64_t ldb, double* c, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1.0, a, static_cast<int>(lda), b, static_cast<int>(ldb), 0.0, c,
              static_cast<int>(ldc));
}

// K, of mean trace 1; where there are few queries, or none, items stand in for some.
Matrix QueryMoments(const Matrix& root, int64_t dim, std::span<const double> queries) {
  const int64_t given = static_cast<int64_t>(queries.size()) / dim;
  const double stand_ins = static_cast<double>(dim) / 4;
  const double all = static_cast<double>(given) + stand_ins;
  Matrix moments(static_cast<size_t>(dim * dim));
  if (given > 0) {
    Matrix weights(queries.size());  // rows z^T R
    Multiply(given, dim, dim, queries.data(), dim, root.data(), dim, weights.data(), dim);
    AddSecondMoments(weights, dim, 1 / all, moments);
  }
  // Items as queries have second moments R R^T, so the rows of R^T R stand for them.
  Matrix columns(root.size());
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(dim), static_cast<int>(dim),
              static_cast<int>(dim), 1.0, root.data(), static_cast<int>(dim), root.data(),
              static_cast<int>(dim), 0.0, columns.data(), static_cast<int>(dim));
  double trace = 0;
  for (const double value : root) trace += value * value;
  AddSecondMoments(columns, dim, stand_ins / all / trace, moments);
  MirrorLower(dim, moments);
  return moments;
}

double Norm(const Matrix& a) {
  double square = 0;
  for (const double value : a) square += value * value;
  return std::sqrt(square);
}

// I - G B.
Matrix Defect(int64_t dim, const Matrix& g, const Matrix& b) {
  Matrix defect(g.size());
  Multiply(dim, dim, dim, g.data(), dim, b.data(), dim, defect.data(), dim);
  for (int64_t r = 0; r < dim; ++r) {
    for (int64_t c = 0; c < dim; ++c) {
      defect[r * dim + c] = (r == c ? 1.0 : 0.0) - defect[r * dim + c];
    }
  }
  return defect;
}

// B += B (I - G B): a Newton step towards G's inverse.
void Refine(int64_t dim, const Matrix& g, Matrix& b) {
  const Matrix defect = Defect(dim, g, b);
  Matrix step(b.size());
  Multiply(dim, dim, dim, b.data(), dim, defect.data(), dim, step.data(), dim);
  for (size_t i = 0; i < b.size(); ++i) b[i] += step[i];
}

// The rounding of three products of this length in double precision, for operands of norm 1.
double ProductRounding(int64_t dim) {
  return 8.0 * static_cast<double>(dim + 8) * std::numeric_limits<double>::epsilon();
}

}  // namespace

void NestedTransform::Encode(std::span<const double> rows, std::span<double> out) const {
  if (encode.empty()) {
    std::copy(rows.begin(), rows.end(), out.begin());
    return;
  }
  const int64_t n = static_cast<int64_t>(rows.size()) / dim;
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(n), static_cast<int>(dim),
              static_cast<int>(dim), 1.0, rows.data(), static_cast<int>(dim), encode.data(),
              static_cast<int>(dim), 0.0, out.data(), static_cast<int>(dim));
}

void NestedTransform::DecodeTransposed(std::span<const double> z, std::span<double> y) const {
  if (decode.empty()) {
    std::copy(z.begin(), z.end(), y.begin());
    return;
  }
  std::fill(y.begin(), y.end(), 0.0);
  AddCombinations(decode.data(), dim, dim, static_cast<int64_t>(z.size()) / dim, z.data(),
                  y.data());
}

absl::StatusOr<NestedTransform> FitNestedTransform(int64_t dim, std::span<const double> directions,
                                                   std::span<const double> queries) {
  const int64_t n = static_cast<int64_t>(directions.size()) / dim;
  NestedTransform transform{.dim = dim,
                            .mean = std::vector<double>(static_cast<size_t>(dim)),
                            .decode = {},
                            .encode = {},
                            .error = 4 * ProductRounding(dim)};
  if (n == 0 || dim > NestedTransform::kLargestDim) return transform;
  std::vector<double>& mean = transform.mean;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < dim; ++c) mean[c] += directions[r * dim + c];
  }
  for (double& value : mean) value /= static_cast<double>(n);
  NESTREC_RETURN_IF_ERROR(CheckRoomForBlas(omp_get_max_threads()));
  Matrix centred(directions.begin(), directions.end());
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < dim; ++c) centred[r * dim + c] -= mean[c];
  }
  Matrix moments = SecondMoments(centred, dim);
  centred = {};
  double trace = 0;
  for (int64_t c = 0; c < dim; ++c) trace += moments[c * dim + c];
  if (!(trace > 0)) return transform;  // all alike: nothing to order
  const double ridge = RidgeOf(n, dim) * trace / static_cast<double>(dim);
  for (int64_t c = 0; c < dim; ++c) moments[c * dim + c] += ridge;
  Matrix root = moments;
  NESTREC_RETURN_IF_ERROR(Cholesky(root, static_cast<int>(dim)));
  Matrix inverse = root;
  NESTREC_RETURN_IF_ERROR(InvertTriangle(inverse, static_cast<int>(dim)));

  Matrix turn = QueryMoments(root, dim, queries);
  NESTREC_ASSIGN_OR_RETURN(const std::vector<double> values, Eigen(turn, static_cast<int>(dim)));
  const double least = std::max(values.back() * 1e-8, 1e-30);
  Matrix forward(turn.size());   // U diag(1 / f), columns by falling eigenvalue
  Matrix backward(turn.size());  // diag(f) U^T
  for (int64_t i = 0; i < dim; ++i) {
    const int64_t from = dim - 1 - i;
    const double factor = std::sqrt(std::sqrt(std::max(values[from], least)));
    for (int64_t c = 0; c < dim; ++c) {
      forward[c * dim + i] = turn[from * dim + c] / factor;
      backward[i * dim + c] = turn[from * dim + c] * factor;
    }
  }
  Matrix decode(turn.size());
  Matrix encode(turn.size());
  Multiply(dim, dim, dim, root.data(), dim, forward.data(), dim, decode.data(), dim);
  Multiply(dim, dim, dim, backward.data(), dim, inverse.data(), dim, encode.data(), dim);
  transform.decode.assign(decode.begin(), decode.end());  // rounds to float
  decode.assign(transform.decode.begin(), transform.decode.end());
  Refine(dim, decode, encode);
  Refine(dim, decode, encode);
  double mean_square = 0;
  for (const double value : mean) mean_square += value * value;
  const double rounding = ProductRounding(dim) * Norm(decode) * Norm(encode);
  const double error = (1.01 * Norm(Defect(dim, decode, encode)) + 4 * rounding) *
                       (1 + std::sqrt(mean_square)) * 1.01;
  constexpr double kUseful = 1e-4;
  if (!(error < kUseful)) {  // too ill-conditioned a sample: a plain centring is better
    transform.decode = {};
    return transform;
  }
  transform.encode = std::move(encode);
  transform.error = error + 4 * ProductRounding(dim);
  return transform;
}

}  // namespace nestrec

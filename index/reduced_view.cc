#include "index/reduced_view.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "base/guard.h"
#include "base/status_macros.h"
#include "index/blas_room.h"
#include "index/nested_transform.h"
#include "index/symmetric_matrix.h"
#include "index/vector_kernels.h"

namespace nestrec {
namespace {

constexpr int64_t kRowsAtOnce = 512;  // that are multiplied together
constexpr int64_t kColumns = 16;      // a whole number of them, as vector instructions take them
// Items that are looked at first, for each column: enough to tell a full rank.
constexpr int64_t kLookedAt = 4;
// Squared: what that look lets pass, generously, since it bounds the rank from above.
constexpr double kLookTolerance = 1e-4;
// What is left of one item may be so many times what is left of all on average.
constexpr double kManyTimes = 8;
// Norms with which nothing here leaves float's range.
constexpr double kLargestNorm = 1e37;
constexpr double kUnit = 0x1p-24;        // of float
constexpr double kDoubleUnit = 0x1p-53;  // of double

double NormOf(std::span<const double> values) {
  double square = 0;
  for (const double value : values) square += value * value;
  return std::sqrt(square);
}

// Items begin, begin + step, ... into `rows`, [count, dim].
void CopyItems(const LevelVectors& vectors, int64_t begin, int64_t step, int64_t count,
               std::vector<double>& rows) {
  const size_t dim = static_cast<size_t>(vectors.sizes.max_dim());
  std::vector<float> values(dim);
  rows.resize(static_cast<size_t>(count) * dim);
  for (int64_t i = 0; i < count; ++i) {
    vectors.CopyRows(vectors.sizes.levels(), begin + i * step + 1, values);
    std::copy(values.begin(), values.end(), rows.begin() + i * static_cast<int64_t>(dim));
  }
}

void Centre(std::span<const double> mean, std::span<double> rows) {
  for (size_t begin = 0; begin < rows.size(); begin += mean.size()) {
    for (size_t c = 0; c < mean.size(); ++c) rows[begin + c] -= mean[c];
  }
}

// Calls use(rows) for blocks of every step-th item.
template <class Use>
void ForEachBlock(const LevelVectors& vectors, int64_t step, Use use) {
  const int64_t taken = (vectors.items() + step - 1) / step;
  std::vector<double> rows;
  for (int64_t from = 0; from < taken; from += kRowsAtOnce) {
    CopyItems(vectors, from * step, step, std::min(kRowsAtOnce, taken - from), rows);
    use(std::span<double>(rows));
  }
}

// Second moments about the mean of every step-th item, the lower triangle alone.
std::vector<double> MomentsOf(const LevelVectors& vectors, int64_t step,
                              std::span<const double> mean) {
  const int64_t dim = vectors.sizes.max_dim();
  const double taken = static_cast<double>((vectors.items() + step - 1) / step);
  std::vector<double> moments(static_cast<size_t>(dim * dim));
  ForEachBlock(vectors, step, [&](std::span<double> rows) {
    Centre(mean, rows);
    AddSecondMoments(rows, dim, 1 / taken, moments);
  });
  return moments;
}

int64_t ColumnsFor(int64_t rank) {
  return std::max<int64_t>(1, (rank + kColumns - 1) / kColumns) * kColumns;
}

double TraceOf(const std::vector<double>& matrix, int64_t dim) {
  double trace = 0;
  for (int64_t c = 0; c < dim; ++c) trace += matrix[static_cast<size_t>(c * dim + c)];
  return trace;
}

}  // namespace

int64_t ReducedView::MostColumns(int64_t dim, int64_t items) {
  if (items > kMostItems || dim > NestedTransform::kLargestDim) return 0;
  return static_cast<int64_t>(kMostShare * static_cast<double>(dim)) / kColumns * kColumns;
}

int64_t ReducedView::BytesFor(int64_t dim, int64_t items, int64_t rank) {
  const int64_t columns = ColumnsFor(rank);
  if (columns > MostColumns(dim, items)) return 0;
  return static_cast<int64_t>(sizeof(float)) * columns * (items + dim) +
         static_cast<int64_t>(sizeof(double)) * dim;
}

absl::StatusOr<std::unique_ptr<const ReducedView>> ReducedView::Create(
    const LevelVectors& vectors) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  if (MostColumns(vectors.sizes.max_dim(), vectors.items()) == 0) return nullptr;
  NESTREC_RETURN_IF_ERROR(CheckRoomForBlas(omp_get_max_threads()));
  return Guard("reduced view", [&]() -> absl::StatusOr<std::unique_ptr<const ReducedView>> {
    std::unique_ptr<ReducedView> view(new ReducedView(vectors.items(), vectors.sizes.max_dim()));
    NESTREC_ASSIGN_OR_RETURN(const bool made, view->Make(vectors));
    if (!made) return nullptr;
    return std::unique_ptr<const ReducedView>(std::move(view));
  });
}

// Some of the items say of most catalogues, cheaply, that their rank is full. Of others they say
// what it is, unless an item that was not among them has a direction of its own: then all say it.
absl::StatusOr<bool> ReducedView::Make(const LevelVectors& vectors) {
  const int64_t step = std::max<int64_t>(1, items_ / (kLookedAt * dim_));
  mean_.assign(static_cast<size_t>(dim_), 0.0);
  const double taken = static_cast<double>((items_ + step - 1) / step);
  ForEachBlock(vectors, step, [&](std::span<double> rows) {
    for (size_t i = 0; i < rows.size(); ++i) mean_[i % mean_.size()] += rows[i] / taken;
  });
  mean_norm_ = NormOf(mean_);
  std::vector<double> moments = MomentsOf(vectors, step, mean_);
  const double square = TraceOf(moments, dim_) + mean_norm_ * mean_norm_;  // of items, the mean
  if (!(square > 0 && std::isfinite(square))) return false;
  {
    std::vector<double> looked = moments;
    const double left = kLookTolerance * square / static_cast<double>(dim_);
    if (PivotedRank(looked, static_cast<int>(dim_), left) > MostColumns(dim_, items_)) return false;
  }
  NESTREC_ASSIGN_OR_RETURN(bool fits, Fit(std::move(moments)));
  if (!fits) return false;
  NESTREC_ASSIGN_OR_RETURN(bool measured, Fill(vectors));
  if (step == 1 || !measured || largest_rest_ <= kManyTimes * kTolerance * std::sqrt(square)) {
    return measured;
  }
  NESTREC_ASSIGN_OR_RETURN(fits, Fit(MomentsOf(vectors, 1, mean_)));
  if (!fits) return false;
  return Fill(vectors);
}

absl::StatusOr<bool> ReducedView::Fit(std::vector<double> moments) {
  const double all = TraceOf(moments, dim_) + mean_norm_ * mean_norm_;
  NESTREC_ASSIGN_OR_RETURN(const std::vector<double> values,
                           Eigen(moments, static_cast<int>(dim_)));
  int64_t rank = dim_;
  double left = 0;
  while (rank > 1) {
    left += std::max(0.0, values[static_cast<size_t>(dim_ - rank)]);
    if (!(left <= kTolerance * kTolerance * all)) break;
    --rank;
  }
  columns_ = ColumnsFor(rank);
  if (columns_ > MostColumns(dim_, items_)) return false;
  decode_.resize(static_cast<size_t>(dim_ * columns_));
  double square = 0;
  for (int64_t j = 0; j < columns_; ++j) {
    for (int64_t c = 0; c < dim_; ++c) {
      const float value =
          static_cast<float>(moments[static_cast<size_t>((dim_ - 1 - j) * dim_ + c)]);
      decode_[static_cast<size_t>(c * columns_ + j)] = value;
      square += static_cast<double>(value) * static_cast<double>(value);
    }
  }
  decode_norm_ = std::sqrt(square);
  return true;
}

absl::StatusOr<bool> ReducedView::Fill(const LevelVectors& vectors) {
  rows_ = AlignedArray<float>(static_cast<size_t>(items_ * columns_));
  const std::vector<double> decode(decode_.begin(), decode_.end());
  const int64_t blocks = (items_ + kRowsAtOnce - 1) / kRowsAtOnce;
  struct Norms {
    double item = 0, row = 0, rest = 0;
  };
  std::vector<Norms> norms(static_cast<size_t>(blocks));
  std::vector<absl::Status> statuses(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(dynamic)
  for (int64_t block = 0; block < blocks; ++block) {
    statuses[static_cast<size_t>(block)] = Guard("reduced view", [&] {
      const int64_t begin = block * kRowsAtOnce;
      const int64_t count = std::min(kRowsAtOnce, items_ - begin);
      Norms& most = norms[static_cast<size_t>(block)];
      std::vector<double> items;
      CopyItems(vectors, begin, 1, count, items);
      // A value that is no number stays one: std::max would lose it.
      const auto raise = [&](double& largest, std::span<const double> values, int64_t width) {
        for (int64_t i = 0; i < count; ++i) {
          const double norm =
              NormOf(values.subspan(static_cast<size_t>(i * width), static_cast<size_t>(width)));
          if (!(norm <= largest)) largest = norm;
        }
      };
      raise(most.item, items, dim_);
      Centre(mean_, items);
      const std::vector<float> centred(items.begin(), items.end());
      float* const rows = rows_.data() + begin * columns_;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(count),
                  static_cast<int>(columns_), static_cast<int>(dim_), 1.0f, centred.data(),
                  static_cast<int>(dim_), decode_.data(), static_cast<int>(columns_), 0.0f, rows,
                  static_cast<int>(columns_));
      const std::vector<double> stored(rows, rows + count * columns_);
      raise(most.row, stored, columns_);
      cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(count),
                  static_cast<int>(dim_), static_cast<int>(columns_), -1.0, stored.data(),
                  static_cast<int>(columns_), decode.data(), static_cast<int>(columns_), 1.0,
                  items.data(), static_cast<int>(dim_));
      raise(most.rest, items, dim_);
      return absl::OkStatus();
    });
  }
  for (const absl::Status& status : statuses) NESTREC_RETURN_IF_ERROR(status);
  largest_item_ = largest_row_ = largest_rest_ = 0;
  for (const Norms& most : norms) {
    if (!(most.item < kLargestNorm && most.row < kLargestNorm && most.rest < kLargestNorm)) {
      return false;
    }
    largest_item_ = std::max(largest_item_, most.item);
    largest_row_ = std::max(largest_row_, most.row);
    largest_rest_ = std::max(largest_rest_, most.rest);
  }
  // The rounding, in double, of what was just measured.
  constexpr double kUp = 1 + 1e-9;
  const double n = static_cast<double>(dim_ + columns_ + 8);
  largest_item_ *= kUp;
  largest_row_ *= kUp;
  largest_rest_ = kUp * largest_rest_ +
                  2 * n * kDoubleUnit * (largest_item_ + mean_norm_ + decode_norm_ * largest_row_);
  return true;
}

int64_t ReducedView::bytes() const { return BytesFor(dim_, items_, columns_); }

bool ReducedView::Holds(std::span<const float> query) const {
  double square = 0;
  for (const float value : query) square += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(square) * (1 + decode_norm_) * (1 + largest_row_) < kLargestNorm;
}

std::vector<ReducedView::Query> ReducedView::Project(
    std::span<const std::span<const float>> queries) const {
  const size_t dim = static_cast<size_t>(dim_);
  const size_t columns = static_cast<size_t>(columns_);
  std::vector<double> all;
  for (const auto query : queries) all.insert(all.end(), query.begin(), query.end());
  std::vector<double> weights(queries.size() * columns);
  AddCombinations(decode_.data(), dim_, columns_, static_cast<int64_t>(queries.size()), all.data(),
                  weights.data());
  constexpr double kLeast = static_cast<double>(std::numeric_limits<float>::min());
  const double n = static_cast<double>(columns_) + 16;
  const double gamma = n * kUnit / (1 - n * kUnit);
  std::vector<Query> projected(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    const auto z = std::span<const double>(all).subspan(q * dim, dim);
    const auto exact = std::span<const double>(weights).subspan(q * columns, columns);
    Query& query = projected[q];
    query.weights.assign(exact.begin(), exact.end());
    for (size_t c = 0; c < dim; ++c) query.offset += z[c] * mean_[c];
    const double length = NormOf(z);
    const double weight = NormOf(exact) * (1 + 2 * kUnit);
    // Of w: to float, with underflow, and of the sums in double that it came from.
    const double rounding = 2 * kUnit * weight + std::sqrt(n) * kLeast +
                            2 * static_cast<double>(dim_ + 8) * kDoubleUnit * decode_norm_ * length;
    query.error = (length * largest_rest_ + (rounding + gamma * weight) * largest_row_ +
                   4 * kUnit * length * largest_item_ + 2 * n * kLeast) *
                  (1 + 1e-6);
  }
  return projected;
}

}  // namespace nestrec

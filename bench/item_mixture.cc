#include "bench/item_mixture.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/random.h"

namespace nestrec {
namespace {

constexpr float kOwnShare = 0.5f;  // of a cluster's covariance that is its own
constexpr int kRounds = 10;        // of k-means

// c[m, n] = beta c + a[m, k] b[k, n], or b[n, k]^T.
void Product(int64_t m, int64_t n, int64_t k, float alpha, const float* a, const float* b,
             bool transposed, float beta, float* c) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, transposed ? CblasTrans : CblasNoTrans,
              static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), alpha, a,
              static_cast<int>(k), b, static_cast<int>(transposed ? k : n), beta, c,
              static_cast<int>(n));
}

// The lower Cholesky factor, in place; columns without variance become 0.
void Root(std::vector<float>& matrix, int64_t dim) {
  for (int64_t r = 0; r < dim; ++r) {
    for (int64_t c = 0; c <= r; ++c) {
      const double sum = static_cast<double>(matrix[r * dim + c]) -
                         static_cast<double>(cblas_sdot(static_cast<int>(c), &matrix[r * dim], 1,
                                                        &matrix[c * dim], 1));
      const double pivot = matrix[c * dim + c];
      const double value = r == c ? std::sqrt(std::max(0.0, sum)) : pivot > 0 ? sum / pivot : 0;
      matrix[r * dim + c] = static_cast<float>(value);
    }
    std::fill_n(matrix.begin() + r * dim + r + 1, dim - r - 1, 0.0f);
  }
}

}  // namespace

ItemMixture::ItemMixture(std::span<const float> items, int64_t dim, int64_t clusters, uint64_t seed)
    : dim_(dim) {
  const int64_t n = static_cast<int64_t>(items.size()) / dim;
  Random random(seed);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  random.Shuffle(std::span(order));
  for (int64_t c = 0; c < clusters; ++c) {
    const auto row = items.subspan(static_cast<size_t>(order[c] * dim), static_cast<size_t>(dim));
    centres_.insert(centres_.end(), row.begin(), row.end());
  }
  std::vector<int64_t> cluster(static_cast<size_t>(n));
  std::vector<int64_t> sizes(static_cast<size_t>(clusters));
  std::vector<float> dots(static_cast<size_t>(n * clusters));
  for (int round = 0; round < kRounds; ++round) {
    Product(n, clusters, dim, 1, items.data(), centres_.data(), /*transposed=*/true, 0,
            dots.data());
    std::vector<float> squares;
    for (int64_t c = 0; c < clusters; ++c) {
      const float* const centre = centres_.data() + c * dim;
      squares.push_back(cblas_sdot(static_cast<int>(dim), centre, 1, centre, 1));
    }
    std::fill(sizes.begin(), sizes.end(), 0);
    for (int64_t i = 0; i < n; ++i) {
      int64_t nearest = 0;
      float least = squares[0] - 2 * dots[i * clusters];
      for (int64_t c = 1; c < clusters; ++c) {
        const float distance = squares[c] - 2 * dots[i * clusters + c];
        if (distance < least) {
          least = distance;
          nearest = c;
        }
      }
      cluster[i] = nearest;
      ++sizes[nearest];
    }
    std::fill(centres_.begin(), centres_.end(), 0.0f);
    for (int64_t i = 0; i < n; ++i) {
      cblas_saxpy(static_cast<int>(dim), 1.0f / static_cast<float>(sizes[cluster[i]]),
                  items.data() + i * dim, 1, centres_.data() + cluster[i] * dim, 1);
    }
  }
  begins_.assign(static_cast<size_t>(clusters) + 1, 0);
  for (int64_t c = 0; c < clusters; ++c) begins_[c + 1] = begins_[c] + sizes[c];
  std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
  residuals_.resize(items.size());
  std::vector<double> mean(static_cast<size_t>(dim));
  for (int64_t i = 0; i < n; ++i) {
    float* const residual = residuals_.data() + next[cluster[i]]++ * dim;
    for (int64_t c = 0; c < dim; ++c) {
      residual[c] = items[i * dim + c] - centres_[cluster[i] * dim + c];
      mean[c] += items[i * dim + c] / static_cast<double>(n);
    }
  }
  pooled_.resize(static_cast<size_t>(dim * dim));
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, static_cast<int>(dim), static_cast<int>(n),
              1.0f / static_cast<float>(n), residuals_.data(), static_cast<int>(dim), 0.0f,
              pooled_.data(), static_cast<int>(dim));
  double within = 0;
  double total = 0;
  for (int64_t c = 0; c < dim; ++c) within += static_cast<double>(pooled_[c * dim + c]);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t c = 0; c < dim; ++c) {
      const double distance = items[i * dim + c] - mean[c];
      total += distance * distance / static_cast<double>(n);
    }
  }
  explained_ = 1 - within / total;
  for (int64_t c = 0; c < dim; ++c) {
    pooled_[c * dim + c] += static_cast<float>(1e-6 * within / static_cast<double>(dim));
  }
  Root(pooled_, dim);
}

void ItemMixture::Sample(uint64_t seed, uint64_t stream, int64_t count,
                         std::span<float> out) const {
  Random random(seed, stream);
  const int64_t n = begins_.back();
  // By cluster, so that a cluster's samples are one product; the order is random again at the end.
  std::vector<int64_t> chosen(static_cast<size_t>(count));
  for (int64_t& cluster : chosen) {
    cluster =
        std::upper_bound(begins_.begin(), begins_.end(), random.Index(n)) - begins_.begin() - 1;
  }
  std::vector<int64_t> order(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return chosen[a] < chosen[b]; });
  std::vector<float> sorted(static_cast<size_t>(count * dim_));
  std::vector<float> draws(static_cast<size_t>(count * dim_));
  const auto normals = [&](int64_t rows, int64_t width) {
    draws.resize(static_cast<size_t>(rows * width));
    for (size_t i = 0; i + 1 < draws.size() + 1; i += 2) {
      const double radius = std::sqrt(-2 * std::log(1 - random.Uniform()));
      const double angle = 2 * M_PI * random.Uniform();
      draws[i] = static_cast<float>(radius * std::cos(angle));
      if (i + 1 < draws.size()) draws[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
  };
  normals(count, dim_);
  Product(count, dim_, dim_, std::sqrt(1 - kOwnShare), draws.data(), pooled_.data(),
          /*transposed=*/true, 0, sorted.data());
  for (int64_t from = 0; from < count;) {
    const int64_t cluster = chosen[order[from]];
    int64_t end = from;
    while (end < count && chosen[order[end]] == cluster) ++end;
    const int64_t members = begins_[cluster + 1] - begins_[cluster];
    normals(end - from, members);
    Product(end - from, dim_, members, std::sqrt(kOwnShare / static_cast<float>(members)),
            draws.data(), residuals_.data() + begins_[cluster] * dim_, /*transposed=*/false, 1,
            sorted.data() + from * dim_);
    for (int64_t i = from; i < end; ++i) {
      float* const to = out.data() + order[i] * dim_;
      for (int64_t c = 0; c < dim_; ++c) {
        to[c] = sorted[i * dim_ + c] + centres_[cluster * dim_ + c];
      }
    }
    from = end;
  }
}

}  // namespace nestrec

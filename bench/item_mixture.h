// More items like those of a model: a mixture of Gaussians fitted to its item vectors, to sample
// from. Copies of the items would flatter an index that prunes, for they crowd around the same few
// scores.
//
// The fit: k-means into `clusters` clusters; a cluster's covariance is half that of its own members
// and half that of all members about their clusters' centres, which gives it full rank. A sample is
// a cluster, drawn by size, its centre, and a draw of that Gaussian.
//
// Thread safety: Sample may run in parallel.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nestrec {

class ItemMixture {
 public:
  // `items` is [n, dim] row-major; n >= clusters.
  ItemMixture(std::span<const float> items, int64_t dim, int64_t clusters, uint64_t seed);

  // Fills `out`, [count, dim] row-major. The same (seed, stream) gives the same items.
  void Sample(uint64_t seed, uint64_t stream, int64_t count, std::span<float> out) const;
  // The share of the items' variance that lies between clusters.
  double explained() const { return explained_; }

 private:
  int64_t dim_;
  double explained_ = 0;
  std::vector<float> centres_;    // [clusters, dim]
  std::vector<float> residuals_;  // [n, dim], members about their centres, by cluster
  std::vector<int64_t> begins_;   // [clusters + 1], rows of residuals_
  std::vector<float> pooled_;     // [dim, dim], the pooled covariance's root, row-major
};

}  // namespace nestrec

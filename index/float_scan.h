// Scores everything, at the speed of single precision and exactly: sums in float find the items
// that can be among the best, and these alone get their canonical score (index/score.h).
//
// The bound: a float sum of `dim` products, in any order and with or without fused multiply-adds,
// is within gamma(dim) * sum |q_c e_c| of the exact one, gamma(n) = n u / (1 - n u), u = 2^-24
// (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 3.1), which is at
// most gamma |q| |e| by Cauchy and Schwarz. Some roundings more cover the canonical score's own,
// the sums across levels and underflow. So where the k-th best of the float sums is t, an item
// below t - 2 error cannot be one of the k best.
//
// Queries of one call share what they read: rows are read once for all of them. What is read are
// the vectors, or a view of them in fewer columns, whose bound is in index/reduced_view.h.
//
// Thread safety: pure functions. One query uses OpenMP's threads where there are many items.
#pragma once

#include <span>
#include <vector>

#include "index/nested_codes.h"
#include "index/nested_search.h"
#include "index/reduced_view.h"
#include "index/top_items.h"

namespace nestrec {

// Whether the bound holds: norms whose product leaves float's range would overflow the sums.
bool FloatScanHolds(const NestedCodes& codes, std::span<const float> query);

// Offers the best items of each request to best[i]; `scored[i]` counts those that were scored
// canonically. Requests may be of different widths: a narrower query's sums are partial ones of a
// wider query's, so rows are read once, as far as the widest. REQUIRES: codes of the same vectors,
// the widest request first, and FloatScanHolds for each.
void FloatScan(std::span<const NestedCodesRequest* const> requests, std::span<TopItems* const> best,
               std::span<int64_t> scored);
// The same by a view of the codes' vectors, at their width alone. REQUIRES: view.Holds for each as
// well.
void FloatScan(const ReducedView& view, std::span<const NestedCodesRequest* const> requests,
               std::span<TopItems* const> best, std::span<int64_t> scored);

}  // namespace nestrec

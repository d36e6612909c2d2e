// A query made ready for the codes of one width, with the bounds that make pruning exact.
//
// What is bounded. Let z be the query, scaled by a power of two so that its
// largest value is in [1/2, 1): that scales all scores and changes no order. For an item with scale
// s and direction x (index/nested_codes.h), y = G^T z and coordinates r of x:
//
//   <z, e> = s <z, x>,   |<z, x> - <z, mean> - sum over groups g of <y_g, r_g>| <= error |z| (1)
//
// by NestedTransform::error. Of a group whose 4-bit codes v (in steps, v = code - 7.5) are read,
// with w_c = y_c step_c rounded to a multiple q of integers n_c in [-127, 127], d = w - q n:
//
//   <y_g, r_g> = q <n, v> + <d, v> + <y_g, r_g - step v>
//              <= q <n, v> + |d| V_g + |y_g| error4_g                                          (2)
//
// V_g being the largest |v| of any item. <n, v> = (2 <n, code> - 15 sum n) / 2 is an integer sum.
// Of a group that is not read yet, <y_g, r_g> <= |y_g| norm_g. So with p the float sum over the
// read groups of q/2 (2 <n, code> - 15 sum n), begun at <z, mean>,
//
//   <z, e> <= s (p + slack),  slack = constant + sum over read g of |y_g| error4_g
//                                              + sum over unread g of |y_g| norm_g             (3)
//
// The sums over g are of 7-bit bounds times 7-bit weights, both rounded up, exact in integers. The
// constant holds error |z|, the |d| V_g and the rounding: p, slack and their sum are at most
// 4 groups + 16 float operations on terms whose absolute values add up to at most M (computed
// here), which err by less than (4 groups + 16) 2^-23 M; products of squares that underflow when
// norms are measured hide less than 1e-15 sum |y_g|.
//
// When the low codes of a group are read too, v becomes v' = v + u with u = (low - 7.5) / 16, and d
// is rounded once more, to d = q/128 m + d'. Then q <n, u> and q/128 <m, v> are added to p, and
//
//   <y_g, r_g> <= q <n, v'> + q/128 <m, v> + |d'| V_g + |d| |u| + |y_g| error8_g,               (4)
//
// |u| being at most half the root of the group's columns.
//
// When an item may be dropped. Its canonical score is within 2^-23 of itself and 1e-10 |z| s of
// <z, e> (double sums, one rounding to float); 1e-10 |z| is in the constant. PruneBelow(t) makes of
// a score t the number that s (p + slack), computed in float, must reach for the item to stay: t
// less 2^-20 of itself and 2^-140, scaled like z, and less 2^-140 again, which covers the rounding
// of the canonical score and of the product, with underflow in either scale. So what is dropped has
// a canonical score below t, strictly: ties stay.
//
// The same slack bounds <z, e> from below, by s (p - slack). Reaches(b) makes of such a bound b,
// computed in float, a score that the item's canonical score reaches, with the same allowances. So
// the k-th highest of any k items' Reaches is a score to beat before any item is scored.
//
// Thread safety: immutable once made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "index/nested_codes.h"

namespace nestrec {

class NestedQuery {
 public:
  // y of each query, [codes.dim()] one after the other: in one pass over G for all.
  static std::vector<double> Weights(const NestedCodes& codes,
                                     std::span<const std::span<const float>> queries);

  // `query` is [codes.dim()], finite and not all zero, `weights` its y. `share` in (0, 1]
  // multiplies what (2) and (3) allow for errors and unread columns: below 1 the bounds are guesses
  // that hold for most items, since errors of many columns rarely all point one way.
  NestedQuery(const NestedCodes& codes, std::span<const float> query,
              std::span<const double> weights, float share);

  int groups() const { return static_cast<int>(groups_.size()); }
  std::span<const float> values() const { return query_; }
  // Where p begins.
  float start() const { return start_; }
  // What reading group g adds to p: its high codes; then its low ones, and the high ones again for
  // the weights' finer part.
  const RowWeights& high(int g) const { return groups_[static_cast<size_t>(g)].high; }
  const RowWeights& low(int g) const { return groups_[static_cast<size_t>(g)].low; }
  const RowWeights& fine(int g) const { return groups_[static_cast<size_t>(g)].fine; }

  // How much is read of each group.
  enum class Read : uint8_t { kNothing, kHigh, kBoth };
  struct Step {
    int group;
    bool low;  // its low codes, after its high ones
  };
  // In which order reading lowers the slack of an ordinary item the most for its bytes.
  std::span<const Step> steps() const { return steps_; }

  // A slack, as the constant and the weights of bound rows.
  struct Slack {
    float constant = 0;
    std::vector<int8_t> weights;
    float scale = 0;

    RowWeights rows() const { return {weights.data(), nullptr, 0, scale}; }
  };
  // After the first `steps` steps.
  const Slack& slack(int steps) const { return slacks_[static_cast<size_t>(steps)]; }

  float PruneBelow(float score) const;
  float Reaches(float bound) const;

 private:
  struct Group {
    std::vector<int8_t> weights;  // n, [2 row_bytes]: those of low halves, then of high ones
    std::vector<int8_t> finer;    // m
    RowWeights high, low, fine;
    double length = 0;         // |y_g|
    double residual = 0;       // |d|
    double fine_residual = 0;  // |d'|
    double largest = 0;        // of the terms that reading adds to p
  };
  void MakeGroup(const NestedCodes::Group& codes, std::span<const double> y);
  void MakeSteps();
  double Constant(std::span<const Read> read) const;
  Slack MakeSlack(std::span<const Read> read) const;

  const NestedCodes& codes_;
  std::span<const float> query_;
  float share_;
  int exponent_ = 0;
  double length_ = 0;  // |z|
  float start_ = 0;
  std::vector<Group> groups_;
  std::vector<Step> steps_;
  std::vector<Slack> slacks_;
};

}  // namespace nestrec

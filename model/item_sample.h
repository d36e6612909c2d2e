// A sampled softmax: the softmax over a few items in place of all of them, for catalogues too large
// for the full one.
//
// Every label of the batch is in the sample. Any other item i is in it with a probability pi_i of
// its own, and its logit is then raised by -log pi_i, so that the sample's sum of exponentials is
// an unbiased estimate of the full one (the logQ correction of Bengio & Senecal 2008, with the
// weights of Horvitz & Thompson 1952).
//
// Thread safety: plain values; ItemSampler draws from the Random that it is given.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"

namespace nestrec {

struct ItemSample {
  std::vector<int64_t> items;   // ascending, each once
  std::vector<float> offsets;   // per item: -log pi_i; 0 for the batch's labels
  std::vector<int64_t> labels;  // per labelled position: where its label is in `items`
};

class ItemSampler {
 public:
  // counts [N + 1]: how often each item is a label in training. About `expected` items are drawn:
  // pi_i = min(1, c * (count_i + 1)^0.75), with c such that they sum to `expected`.
  // REQUIRES: 0 < expected.
  ItemSampler(std::span<const int64_t> counts, int64_t expected);

  // `labels`: those of the labelled positions, in order.
  ItemSample Draw(std::span<const int64_t> labels, Random& random) const;

  std::span<const double> probabilities() const { return probabilities_; }

 private:
  std::vector<double> probabilities_;  // [N + 1]
};

}  // namespace nestrec

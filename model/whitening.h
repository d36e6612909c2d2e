// PCA whitening of the frozen item features, one modality at a time, and its removal from a trained
// projector.
//
// Encoders' vectors crowd around their mean and along few directions; the projector then learns
// slowly. Whitening maps a row f to M (f - mean) with uncorrelated columns of variance about 1, the
// direction of most variance first. As the map is affine, it folds into the projector after
// training: W M (f - mean) + b = (W M) f + (b - W M mean). A checkpoint's projector therefore reads
// raw features, and nobody else needs to know.
//
// Errors are thrown as libtorch does. Thread safety: pure functions on immutable values.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "model/dataset.h"

namespace nestrec {

struct Projector {
  torch::Tensor weight;  // [rows, F]
  torch::Tensor bias;    // [rows]
};

// The projector to the features' principal directions, the one of most variance first: its outputs
// are centred and uncorrelated, and no other projector of as many rows keeps more of the distances
// between items. features [items + 1, F], row 0 not counted -> min(rows, F) orthonormal rows.
Projector PrincipalProjector(const torch::Tensor& features, int64_t rows);

class Whitening {
 public:
  // Directions with less variance than this share of the mean variance are damped instead of blown
  // up.
  static constexpr double kRegularisation = 0.01;

  // From raw features [items + 1, F]; `widths` are the modalities' columns. Row 0 (padding) does
  // not count.
  Whitening(const torch::Tensor& features, const std::vector<int64_t>& widths);

  // [items + 1, F] raw -> whitened, in place and some rows at a time: a large catalogue's features
  // need no copy. REQUIRES: float32 on the CPU. Row 0 stays zero; a zero row of an item without
  // features becomes the modality's constant M (0 - mean), as it does at serving.
  void ApplyTo(torch::Tensor& features) const;
  // The same of a copy.
  torch::Tensor Apply(const torch::Tensor& features) const;

  // The projector [D, F] and bias [D] of whitened features as those of raw ones.
  Projector Fold(const torch::Tensor& weight, const torch::Tensor& bias) const;

 private:
  torch::Tensor mean_;    // [F] float64
  torch::Tensor matrix_;  // [F, F] float64, block-diagonal over modalities; row = whitened column
};

}  // namespace nestrec

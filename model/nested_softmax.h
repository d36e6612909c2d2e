// The nested softmax loss and its gradients, fused: the cross-entropy over ALL items at every size,
// from the network's output straight to the gradients of output, projector and item residuals.
//
// With e_i = W f_i + b + r_i, the score of item i at size s_j is <z[:s_j], e_i[:s_j]>, and the loss
//   sum_j size_weights[j] * mean over positions of -log softmax_j(label)
// (arXiv 2409.16627, section 3.4). Three things may be added to it that are not in the paper:
// - inverse_temperatures[j] scales the scores of size j before its softmax (never at serving, where
//   it would not change an order);
// - with distillation a, the label of every size but the widest is (1 - a) the item itself and a
//   the widest size's softmax, which gets no gradient from there (Hinton et al. 2015);
// - an item's offset is added to its logits: the correction of a sampled softmax.
//
// What makes it cheap:
//
// - Sizes nest: the logits of size j are those of size j - 1 plus level j's product, so that one
//   pass over the D columns serves all sizes. On the way back, the gradient that level j's logits
//   receive is the sum over sizes >= j, accumulated from the widest down.
// - A level's product has two exact forms: by items, z (W f)^T, through a table of the level's item
//   embeddings; and by features, (z W) f^T, without. With P positions and F feature columns they
//   cost 2 w N (2 F + 3 P) and 4 P N F operations with their gradients, w being the level's width:
//   wide levels go by features when positions are few.
// - b adds the same to the scores of all items, which no softmax notices: it is left out, and its
//   gradient from here is 0.
// - Logits exist for a block of positions at a time, transposed, [items, positions]. Where even
//   that would not fit into `memory_bytes`, for a block of items at a time, in two passes: the
//   first for the normalisers, the second, which computes the logits again, for the gradients.
//
// Thread safety: one call at a time on an object. Runs on OpenMP's threads. Keeps the
// memory of the logits from call to call; that of the item embeddings is freed, so that the
// gradients that follow in a training step have room in it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/nested_sizes.h"
#include "model/gemm.h"

namespace nestrec {

struct NestedSoftmaxOptions {
  NestedSizes sizes;
  std::vector<double> size_weights;               // [levels]
  std::vector<double> inverse_temperatures = {};  // [levels]; empty: all 1
  double distillation = 0;                        // 0 .. 1
  // kBfloat16 rounds the operands of the products, in float only; REQUIRES: HasBfloat16().
  Precision precision = Precision::kFloat32;
  // Most scratch memory for logits and item embeddings; a few positions times a few hundred items
  // are always allowed.
  int64_t memory_bytes = int64_t{128} << 20;
};

template <typename T>
class NestedSoftmax {
 public:
  explicit NestedSoftmax(NestedSoftmaxOptions options);
  NestedSoftmax(NestedSoftmax&&) noexcept;
  NestedSoftmax& operator=(NestedSoftmax&&) noexcept;
  ~NestedSoftmax();

  // Row 0, the padding row, is a class as any other.
  struct Items {
    int64_t count;              // N + 1
    int64_t feature_width;      // F
    const T* features;          // [N + 1, F]
    const T* projector;         // [D, F]
    const T* residual;          // [N + 1, D], or null
    const T* offset = nullptr;  // [N + 1], or null: zeros
    // The features, rounded; null: rounded anew for every product (kBfloat16 only).
    const Bfloat16* half_features = nullptr;
  };
  // All are written, none is read.
  struct Gradients {
    T* z;          // [P, D]
    T* projector;  // [D, F]
    T* residual;   // [N + 1, D]; null exactly where the items have none
  };
  // z [P, D], labels [P], each within 0 .. items.count - 1 -> the loss. P > 0.
  double Compute(const Items& items, const T* z, std::span<const int64_t> labels,
                 const Gradients& gradients);

  // Multiplications and additions of the matrix products of the last Compute.
  int64_t flops() const { return flops_; }

  // Whether level `level` goes by features in a batch of `positions`.
  bool ByFeatures(int level, int64_t positions, int64_t feature_width) const;

 private:
  struct Plan;
  struct Scratch;
  class Pass;

  NestedSoftmaxOptions options_;
  int64_t flops_ = 0;
  std::unique_ptr<Scratch> scratch_;
};

extern template class NestedSoftmax<float>;
extern template class NestedSoftmax<double>;

}  // namespace nestrec

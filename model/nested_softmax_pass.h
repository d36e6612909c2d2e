// Inside of nested_softmax.cc: how a call is cut into blocks, its memory, and the way of one block
// of positions through the loss and back. Included there alone.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "model/gemm.h"
#include "model/nested_softmax.h"
#include "model/softmax_kernels.h"

namespace nestrec {

inline int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Calls body(begin, end) for one share of [0, count) on each thread.
template <typename Body>
void ForShares(int64_t count, Body&& body) {
#pragma omp parallel
  {
    const int64_t thread = omp_get_thread_num();
    const int64_t threads = omp_get_num_threads();
    const int64_t begin = count * thread / threads;
    const int64_t end = count * (thread + 1) / threads;
    if (begin < end) body(begin, end);
  }
}

inline constexpr double kNoPosition = 1e30;  // log_sum of a padding column: its softmax is 0

// Which form each level takes, and how the [items, positions] logits are cut into blocks.
template <typename T>
struct NestedSoftmax<T>::Plan {
  static constexpr int64_t kByFeatures = -1;
  std::vector<int64_t> table_column;  // per level: first column in the table, or kByFeatures
  std::vector<int64_t> feature_slot;  // per level: which of the levels by features it is
  // Per level: where its logits are. A level by items shares the narrower level's buffer: its
  // product is cheap enough to be taken off again on the way back.
  std::vector<int64_t> buffer;
  int64_t table_width = 0;
  int64_t feature_slots = 0;
  int64_t buffers = 0;
  int64_t columns = 0;  // positions at a time, a multiple of kSoftmaxColumns
  int64_t rows = 0;     // items at a time
  bool one_pass = true;
  bool own_softmax = true;
  bool distil = false;

  bool by_features(int level) const {
    return table_column[static_cast<size_t>(level)] == kByFeatures;
  }
};

// Memory that calls reuse. What the gradients of a step have room in is freed after each call.
template <typename T>
struct NestedSoftmax<T>::Scratch {
  class Buffer {
   public:
    // Without zeros: everything is written before it is read.
    void Reserve(int64_t count) {
      if (count <= capacity_) return;
      values_.reset();  // first, so that both are never there together
      values_ = std::make_unique_for_overwrite<T[]>(static_cast<size_t>(count));
      capacity_ = count;
    }
    void Free() {
      values_.reset();
      capacity_ = 0;
    }
    T* get() const { return values_.get(); }

   private:
    std::unique_ptr<T[]> values_;
    int64_t capacity_ = 0;
  };

  void Reserve(const Plan& plan, int64_t dim, int64_t feature_width) {
    logits.Reserve(plan.buffers * plan.rows * plan.columns);
    softmax.Reserve(plan.own_softmax ? plan.rows * plan.columns : 0);
    teacher.Reserve(plan.distil ? plan.rows * plan.columns : 0);
    embeddings.Reserve(plan.rows * plan.table_width);
    embedding_gradients.Reserve(plan.rows * plan.table_width);
    z_transposed.Reserve(dim * plan.columns);
    z_negated.Reserve(dim * plan.columns);
    z_projected.Reserve(plan.feature_slots * feature_width * plan.columns);
    by_feature.Reserve(plan.feature_slots * feature_width * plan.columns);
  }
  void FreeTables() {
    embeddings.Free();
    embedding_gradients.Free();
  }

  Buffer logits;      // [buffers][rows, columns], one after the other
  Buffer softmax;     // [rows, columns]: gradient of the logits
  Buffer teacher;     // [rows, columns]: the widest size's softmax
  Buffer embeddings;  // [rows, table_width]
  Buffer embedding_gradients;
  Buffer z_transposed;  // [D, columns]
  Buffer z_negated;     // [D, columns]
  Buffer z_projected;   // [feature_slots][F, columns]
  Buffer by_feature;    // [feature_slots][columns, F]
};

// One block of positions on its way through.
template <typename T>
class NestedSoftmax<T>::Pass {
 public:
  Pass(NestedSoftmax& owner, const Plan& plan, Scratch& scratch, const Items& items,
       const Gradients& gradients, const T* z, std::span<const int64_t> labels, int64_t begin)
      : owner_(owner),
        options_(owner.options_),
        plan_(plan),
        scratch_(scratch),
        items_(items),
        gradients_(gradients),
        labels_(labels.subspan(static_cast<size_t>(begin),
                               static_cast<size_t>(std::min(
                                   plan.columns, static_cast<int64_t>(labels.size()) - begin)))),
        positions_(static_cast<int64_t>(labels_.size())),
        all_positions_(static_cast<int64_t>(labels.size())),
        columns_(RoundUp(positions_, kSoftmaxColumns)),
        dim_(options_.sizes.max_dim()),
        levels_(options_.sizes.levels()),
        first_(begin == 0),
        z_(z + begin * dim_),
        dz_(gradients.z + begin * dim_),
        max_(static_cast<size_t>(levels_ * columns_), -std::numeric_limits<T>::infinity()),
        sum_(max_.size(), T{0}),
        label_logit_(max_.size(), T{0}) {}

  double Run() {
    Transpose();
    ProjectPositions();
    if (plan_.one_pass) {
      if (first_) FillTable(0, items_.count);
      Forward(0, items_.count, /*normalise=*/true);
      const double loss = Normalise();
      Backward(0, items_.count);
      ByFeatureGradients();
      return loss + soft_loss_;
    }
    ForItemBlocks([&](int64_t begin, int64_t end) {
      FillTable(begin, end);
      Forward(begin, end, /*normalise=*/true);
    });
    const double loss = Normalise();
    ForItemBlocks([&](int64_t begin, int64_t end) {
      FillTable(begin, end);
      Forward(begin, end, /*normalise=*/false);
      Backward(begin, end);
      TableGradients(begin, end);
    });
    ByFeatureGradients();
    return loss + soft_loss_;
  }

  // The projector's gradient through the table of items [begin, end), added.
  void TableGradients(int64_t begin, int64_t end) {
    ForTableRuns([&](int64_t column, int64_t row, int64_t width) {
      Multiply(Op::kTranspose, Op::kNone, width, items_.feature_width, end - begin,
               {scratch_.embedding_gradients.get() + column, plan_.table_width}, Features(begin),
               T{1}, gradients_.projector + row * items_.feature_width, items_.feature_width);
    });
  }

 private:
  // A matrix whose rows lie `stride` apart.
  struct Matrix {
    const T* values;
    int64_t stride;
    const Bfloat16* half = nullptr;
  };
  void Multiply(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b,
                T beta, T* c, int64_t ldc) {
    owner_.flops_ += 2 * m * n * k;
    if constexpr (std::is_same_v<T, float>) {
      if (options_.precision == Precision::kBfloat16) {
        GemmBfloat16(op_a, op_b, m, n, k, {a.values, a.stride, a.half, a.stride},
                     {b.values, b.stride, b.half, b.stride}, beta, c, ldc);
        return;
      }
    }
    Gemm(op_a, op_b, m, n, k, a.values, a.stride, b.values, b.stride, beta, c, ldc);
  }
  Matrix Features(int64_t begin) const {
    const int64_t width = items_.feature_width;
    return {items_.features + begin * width, width,
            items_.half_features == nullptr ? nullptr : items_.half_features + begin * width};
  }
  T Offset(int64_t item) const { return items_.offset == nullptr ? T{0} : items_.offset[item]; }
  LogitBlock<T> Block(int level, int64_t first_item, int64_t from, int64_t to) {
    return {.values = Logits(level) + from * columns_,
            .rows = to - from,
            .columns = columns_,
            .scale = InverseTemperature(level),
            .offset = items_.offset == nullptr ? nullptr : items_.offset + first_item + from};
  }
  T InverseTemperature(int level) const {
    return options_.inverse_temperatures.empty()
               ? T{1}
               : static_cast<T>(options_.inverse_temperatures[static_cast<size_t>(level)]);
  }

  template <typename Body>
  void ForItemBlocks(Body&& body) {
    for (int64_t begin = 0; begin < items_.count; begin += plan_.rows) {
      body(begin, std::min(items_.count, begin + plan_.rows));
    }
  }

  // Calls body(table column, projector row, width) for each run of adjacent levels in the table.
  template <typename Body>
  void ForTableRuns(Body&& body) {
    for (int level = 0; level < levels_; ++level) {
      if (plan_.by_features(level)) continue;
      const int first = level;
      while (level + 1 < levels_ && !plan_.by_features(level + 1)) ++level;
      body(plan_.table_column[static_cast<size_t>(first)], options_.sizes.begin(first),
           options_.sizes.end(level) - options_.sizes.begin(first));
    }
  }

  T* Logits(int level) {
    return scratch_.logits.get() +
           plan_.buffer[static_cast<size_t>(level)] * plan_.rows * plan_.columns;
  }
  // Where the gradient of the logits is accumulated: over the widest size's logits, when no other
  // size needs them again.
  T* Softmax() {
    return plan_.own_softmax ? scratch_.softmax.get() : Logits(static_cast<int>(levels_) - 1);
  }
  T* ZProjected(int level) {  // [F, columns]
    return scratch_.z_projected.get() +
           plan_.feature_slot[static_cast<size_t>(level)] * items_.feature_width * plan_.columns;
  }
  T* ByFeature(int level) {  // [positions, F]
    return scratch_.by_feature.get() +
           plan_.feature_slot[static_cast<size_t>(level)] * items_.feature_width * plan_.columns;
  }
  const T* Projector(int level) const {
    return items_.projector + options_.sizes.begin(level) * items_.feature_width;
  }

  void Transpose() {
    T* out = scratch_.z_transposed.get();
    T* negated = scratch_.z_negated.get();
    for (int64_t d = 0; d < dim_; ++d) {
      for (int64_t c = 0; c < columns_; ++c) {
        const T value = c < positions_ ? z_[c * dim_ + d] : T{0};
        out[d * columns_ + c] = value;
        negated[d * columns_ + c] = -value;
      }
    }
  }

  // (z W)^T of the levels by features.
  void ProjectPositions() {
    for (int level = 0; level < levels_; ++level) {
      if (!plan_.by_features(level)) continue;
      Multiply(Op::kTranspose, Op::kNone, items_.feature_width, columns_,
               options_.sizes.width(level), {Projector(level), items_.feature_width},
               {scratch_.z_transposed.get() + options_.sizes.begin(level) * columns_, columns_},
               T{0}, ZProjected(level), columns_);
    }
  }

  // Item embeddings, without b, of the levels by items.
  void FillTable(int64_t begin, int64_t end) {
    T* table = scratch_.embeddings.get();
    ForTableRuns([&](int64_t column, int64_t row, int64_t width) {
      if (items_.residual != nullptr) {
        ForShares(end - begin, [&](int64_t from, int64_t to) {
          for (int64_t r = from; r < to; ++r) {
            std::copy_n(items_.residual + (begin + r) * dim_ + row, width,
                        table + r * plan_.table_width + column);
          }
        });
      }
      Multiply(Op::kNone, Op::kTranspose, end - begin, width, items_.feature_width, Features(begin),
               {items_.projector + row * items_.feature_width, items_.feature_width},
               items_.residual != nullptr ? T{1} : T{0}, table + column, plan_.table_width);
    });
  }

  // Logits of every level for items [begin, end), narrow to wide.
  void Forward(int64_t begin, int64_t end, bool normalise) {
    const int64_t rows = end - begin;
    for (int level = 0; level < levels_; ++level) {
      T* logits = Logits(level);
      const int64_t width = options_.sizes.width(level);
      const T* z_level =
          scratch_.z_transposed.get() + options_.sizes.begin(level) * columns_;  // [w, columns]
      T beta = level == 0 ? T{0} : T{1};  // the narrower size's logits are there already
      if (plan_.by_features(level)) {
        Multiply(Op::kNone, Op::kNone, rows, columns_, items_.feature_width, Features(begin),
                 {ZProjected(level), columns_}, beta, logits, columns_);
        if (items_.residual != nullptr) {
          Multiply(Op::kNone, Op::kNone, rows, columns_, width,
                   {items_.residual + begin * dim_ + options_.sizes.begin(level), dim_},
                   {z_level, columns_}, T{1}, logits, columns_);
        }
      } else {
        AddTableLogits(level, rows, scratch_.z_transposed.get(), beta);
      }
      T* next = level + 1 < levels_ && Logits(level + 1) != logits ? Logits(level + 1) : nullptr;
      if (normalise) {
        TakeIn(level, begin, rows, next);
        TakeLabels(level, logits, begin, end);
      } else if (next != nullptr) {
        ForShares(rows, [&](int64_t from, int64_t to) {
          std::copy(logits + from * columns_, logits + to * columns_, next + from * columns_);
        });
      }
    }
  }

  // logits = table z^T + beta * logits, of a level by items; z [D, columns].
  void AddTableLogits(int level, int64_t rows, const T* z, T beta) {
    Multiply(Op::kNone, Op::kNone, rows, columns_, options_.sizes.width(level),
             {scratch_.embeddings.get() + plan_.table_column[static_cast<size_t>(level)],
              plan_.table_width},
             {z + options_.sizes.begin(level) * columns_, columns_}, beta, Logits(level), columns_);
  }

  // Takes rows of logits into the level's normaliser.
  void TakeIn(int level, int64_t first_item, int64_t rows, T* copy) {
    T* max = max_.data() + level * columns_;
    T* sum = sum_.data() + level * columns_;
    const int64_t shares = omp_get_max_threads();
    std::vector<T> maxima(static_cast<size_t>(shares * columns_),
                          -std::numeric_limits<T>::infinity());
    std::vector<T> sums(maxima.size(), T{0});
    ForShares(rows, [&](int64_t from, int64_t to) {
      const int64_t at = omp_get_thread_num() * columns_;
      UpdateLogSumExp(Block(level, first_item, from, to),
                      copy == nullptr ? nullptr : copy + from * columns_, maxima.data() + at,
                      sums.data() + at);
    });
    for (int64_t share = 0; share < shares; ++share) {
      for (int64_t c = 0; c < columns_; ++c) {
        const T other = maxima[static_cast<size_t>(share * columns_ + c)];
        const T other_sum = sums[static_cast<size_t>(share * columns_ + c)];
        if (other_sum == T{0}) continue;
        const T together = std::max(max[c], other);
        sum[c] = sum[c] * std::exp(max[c] - together) + other_sum * std::exp(other - together);
        max[c] = together;
      }
    }
  }

  void TakeLabels(int level, const T* logits, int64_t begin, int64_t end) {
    for (int64_t c = 0; c < positions_; ++c) {
      const int64_t label = labels_[static_cast<size_t>(c)];
      if (label < begin || label >= end) continue;
      label_logit_[static_cast<size_t>(level * columns_ + c)] =
          InverseTemperature(level) * logits[(label - begin) * columns_ + c] + Offset(label);
    }
  }

  // Turns the normalisers into log sums, kept in max_; returns the block's share of the loss.
  double Normalise() {
    double loss = 0;
    for (int level = 0; level < levels_; ++level) {
      double of_level = 0;
      for (int64_t c = 0; c < columns_; ++c) {
        const size_t at = static_cast<size_t>(level * columns_ + c);
        max_[at] = c < positions_ ? max_[at] + std::log(sum_[at]) : static_cast<T>(kNoPosition);
        if (c < positions_) {
          of_level += static_cast<double>(max_[at] - HardShare(level) * label_logit_[at]);
        }
      }
      loss += Weight(level) * of_level;
    }
    return loss;
  }

  double Weight(int level) const {
    return options_.size_weights[static_cast<size_t>(level)] / static_cast<double>(all_positions_);
  }
  // How much of a size's target is the label; the rest is the widest size's softmax.
  T HardShare(int level) const {
    return level + 1 == levels_ ? T{1} : static_cast<T>(1 - options_.distillation);
  }

  // Gradients through the logits of items [begin, end), wide to narrow.
  void Backward(int64_t begin, int64_t end) {
    const int64_t rows = end - begin;
    T* s = Softmax();  // [rows, columns]
    const T first_items = begin == 0 ? T{0} : T{1};
    for (int level = static_cast<int>(levels_) - 1; level >= 0; --level) {
      const bool widest = level + 1 == levels_;
      const T weight = static_cast<T>(Weight(level)) * InverseTemperature(level);
      if (widest && plan_.distil) {
        ForShares(rows, [&](int64_t from, int64_t to) {
          AddSoftmax(Block(level, begin, from, to), LogSum(level), T{1}, /*overwrite=*/true,
                     scratch_.teacher.get() + from * columns_);
        });
      }
      if (!widest && plan_.distil) LearnFromTeacher(level, begin, rows, weight, s);
      ForShares(rows, [&](int64_t from, int64_t to) {
        AddSoftmax(Block(level, begin, from, to), LogSum(level), weight, widest,
                   s + from * columns_);
      });
      for (int64_t c = 0; c < positions_; ++c) {
        const int64_t label = labels_[static_cast<size_t>(c)];
        if (label >= begin && label < end) {
          s[(label - begin) * columns_ + c] -= weight * HardShare(level);
        }
      }

      const int64_t column = options_.sizes.begin(level);
      const int64_t width = options_.sizes.width(level);
      T* dz = dz_ + column;  // [positions, w], rows dim_ apart
      if (plan_.by_features(level)) {
        Multiply(Op::kTranspose, Op::kNone, positions_, items_.feature_width, rows, {s, columns_},
                 Features(begin), first_items, ByFeature(level), items_.feature_width);
        if (items_.residual != nullptr) {
          Multiply(Op::kTranspose, Op::kNone, positions_, width, rows, {s, columns_},
                   {items_.residual + begin * dim_ + column, dim_}, first_items, dz, dim_);
        }
      } else {
        const int64_t at = plan_.table_column[static_cast<size_t>(level)];
        Multiply(Op::kTranspose, Op::kNone, positions_, width, rows, {s, columns_},
                 {scratch_.embeddings.get() + at, plan_.table_width}, first_items, dz, dim_);
        Multiply(Op::kNone, Op::kNone, rows, width, positions_, {s, columns_}, {z_ + column, dim_},
                 plan_.one_pass && !first_ ? T{1} : T{0}, scratch_.embedding_gradients.get() + at,
                 plan_.table_width);
      }
      if (items_.residual != nullptr) {
        Multiply(Op::kNone, Op::kNone, rows, width, positions_, {s, columns_}, {z_ + column, dim_},
                 first_ ? T{0} : T{1}, gradients_.residual + begin * dim_ + column, dim_);
      }
      if (level > 0 && !plan_.by_features(level)) {
        AddTableLogits(level, rows, scratch_.z_negated.get(),
                       T{1});  // the narrower size's logits again
      }
    }
  }

  // The soft part of a narrower size's target: its gradient into s, its share of the loss.
  void LearnFromTeacher(int level, int64_t first_item, int64_t rows, T weight, T* s) {
    const T soft = 1 - HardShare(level);
    std::vector<T> dots(static_cast<size_t>(omp_get_max_threads() * columns_), T{0});
    ForShares(rows, [&](int64_t from, int64_t to) {
      SubtractTeacher(Block(level, first_item, from, to), scratch_.teacher.get() + from * columns_,
                      weight * soft, s + from * columns_,
                      dots.data() + omp_get_thread_num() * columns_);
    });
    double sum = 0;
    for (size_t i = 0; i < dots.size(); ++i) {
      if (static_cast<int64_t>(i) % columns_ < positions_) sum += static_cast<double>(dots[i]);
    }
    soft_loss_ -= Weight(level) * static_cast<double>(soft) * sum;
  }
  const T* LogSum(int level) const { return max_.data() + level * columns_; }

  // From S^T F to the gradients of z and of the projector, for the levels by features.
  void ByFeatureGradients() {
    for (int level = 0; level < levels_; ++level) {
      if (!plan_.by_features(level)) continue;
      const int64_t column = options_.sizes.begin(level);
      const int64_t width = options_.sizes.width(level);
      Multiply(Op::kNone, Op::kTranspose, positions_, width, items_.feature_width,
               {ByFeature(level), items_.feature_width}, {Projector(level), items_.feature_width},
               items_.residual != nullptr ? T{1} : T{0}, dz_ + column, dim_);
      Multiply(Op::kTranspose, Op::kNone, width, items_.feature_width, positions_,
               {z_ + column, dim_}, {ByFeature(level), items_.feature_width}, T{1},
               gradients_.projector + column * items_.feature_width, items_.feature_width);
    }
  }

  NestedSoftmax& owner_;
  const NestedSoftmaxOptions& options_;
  const Plan& plan_;
  Scratch& scratch_;
  const Items& items_;
  const Gradients& gradients_;
  const std::span<const int64_t> labels_;  // [positions]
  const int64_t positions_;                // of this block
  const int64_t all_positions_;            // of the batch
  const int64_t columns_;                  // positions_, padded
  const int64_t dim_;
  const int levels_;
  const bool first_;  // the batch's first block
  const T* z_;        // [positions, D]
  T* dz_;
  std::vector<T> max_;  // [levels, columns]; after Normalise: log of the sum of exp
  std::vector<T> sum_;
  std::vector<T> label_logit_;
  double soft_loss_ = 0;  // what distillation adds to the loss, the normalisers apart
};

}  // namespace nestrec

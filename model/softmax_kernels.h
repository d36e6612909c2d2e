// The element-wise half of a softmax loss over transposed logits: one row per item, one column per
// position, so that every vector lane is a position and nothing is reduced across lanes.
//
// T is float or double. Vectorised by Highway for the processor that the program runs on.
// Thread safety: plain functions; each call uses one thread.
#pragma once

#include <cstdint>

namespace nestrec {

// Columns are padded to a multiple of this many, whatever the processor.
inline constexpr int64_t kSoftmaxColumns = 16;

// A row's logits are scale * value + offset[row]; a null offset is 0.
template <typename T>
struct LogitBlock {
  const T* values;  // [rows, columns]
  int64_t rows;
  int64_t columns;  // a multiple of kSoftmaxColumns
  T scale = 1;
  const T* offset = nullptr;  // [rows]
};

// max and sum, [columns], describe the rows seen so far: sum of exp(logit - max). Takes in a block
// more; an empty description is max = -inf, sum = 0.
// copy: null, or [rows, columns] that becomes a copy of the values.
// REQUIRES: logits are finite.
void UpdateLogSumExp(const LogitBlock<float>& logits, float* copy, float* max, float* sum);
void UpdateLogSumExp(const LogitBlock<double>& logits, double* copy, double* max, double* sum);

// out[r, c] += weight * exp(logit[r, c] - log_sum[c]); with `overwrite`, = instead of +=.
// `out` may be the values. A padding column takes a huge log_sum (1e30) and yields zeros.
void AddSoftmax(const LogitBlock<float>& logits, const float* log_sum, float weight, bool overwrite,
                float* out);
void AddSoftmax(const LogitBlock<double>& logits, const double* log_sum, double weight,
                bool overwrite, double* out);

// For the distillation of a wider size's softmax, teacher [rows, columns], to a narrower one:
// out[r, c] -= weight * teacher[r, c], and dot[c] += sum over rows of teacher[r, c] * logit[r, c].
void SubtractTeacher(const LogitBlock<float>& logits, const float* teacher, float weight,
                     float* out, float* dot);
void SubtractTeacher(const LogitBlock<double>& logits, const double* teacher, double weight,
                     double* out, double* dot);

}  // namespace nestrec

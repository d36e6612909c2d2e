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

// max and sum, [columns], describe the rows seen so far: sum of exp(scale * logit - max). Takes in
// `rows` more rows of logits [rows, columns]; an empty description is max = -inf, sum = 0.
// copy: null, or [rows, columns] that becomes a copy of the logits.
// REQUIRES: columns is a multiple of kSoftmaxColumns; logits are finite.
void UpdateLogSumExp(const float* logits, int64_t rows, int64_t columns, float scale, float* copy,
                     float* max, float* sum);
void UpdateLogSumExp(const double* logits, int64_t rows, int64_t columns, double scale,
                     double* copy, double* max, double* sum);

// out[r, c] += weight * exp(scale * logits[r, c] - log_sum[c]); with `overwrite`, = instead of +=.
// `out` may be `logits`. A padding column takes a huge log_sum (1e30) and yields zeros.
void AddSoftmax(const float* logits, int64_t rows, int64_t columns, float scale,
                const float* log_sum, float weight, bool overwrite, float* out);
void AddSoftmax(const double* logits, int64_t rows, int64_t columns, double scale,
                const double* log_sum, double weight, bool overwrite, double* out);

}  // namespace nestrec

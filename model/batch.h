// Training sequences and packed batches.
//
// A training sequence is a pair of equally long rows: tokens t_1..t_n (inputs) and labels l_1..l_n,
// where l_i is the item after t_i. A token 0 (padding) at a position with a label stands for
// "nothing before": it is the learned prior's input. A packed batch holds only real positions, row
// after row, as runs: a run is a stretch over which the recurrent state passes on; every padding
// position is a run of its own, since padding never passes its state on.
//
// Thread safety: plain values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/dataset.h"

namespace nestrec {

// Which part of a user's training items (all but the last two) becomes training sequences.
enum class Windows {
  kLast,  // the last max_len items, as the reference does; earlier items of longer users are never
          // trained on
  kAll,   // consecutive windows of max_len targets over the whole sequence, counted from its end
};

// One training sequence: targets are items [begin, end) of user u's sequence; the inputs are the
// items before each, from begin - 1 on.
struct TrainingWindow {
  int64_t user;
  int32_t begin;
  int32_t end;
};

// Users with fewer than 3 events train on all their events, as they have neither validation nor
// test item.
std::vector<TrainingWindow> MakeTrainingWindows(const Dataset& dataset, int max_len,
                                                Windows windows);

struct PackedBatch {
  std::vector<int64_t> tokens;      // [P]
  std::vector<int64_t> labels;      // [P]; 0: the position feeds the state but not the loss
  std::vector<int64_t> run_begins;  // [runs + 1], 0 .. P
  int64_t positions() const { return static_cast<int64_t>(tokens.size()); }
  int64_t labelled() const;
  // Appends one sequence. REQUIRES: tokens.size() == labels.size().
  void Append(std::span<const int64_t> tokens, std::span<const int64_t> labels);
};

PackedBatch PackWindows(const Dataset& dataset, std::span<const TrainingWindow> windows);

}  // namespace nestrec

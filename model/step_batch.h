// The arithmetic of planned steps, many sessions at a time. Levels are computed narrow to wide over
// the rows of all sessions that ask for them; sessions that asked for less, or whose time is over,
// drop out.
//
// The work of one call. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/checkpoint.h"
#include "model/encoder.h"
#include "model/encoder_mixer.h"
#include "model/session_state.h"
#include "model/step_plan.h"

namespace nestrec {

struct StepJob {
  StepPlan plan;
  int levels = 0;                       // that are computed in any case
  int most_levels = 0;                  // that may be, asked for one by one
  size_t row = 0;                       // by which GoOn is asked
  int64_t end = 0;                      // the number after the session's newest event
  SessionState* state;                  // in and out; has room for `levels`, grows beyond them
  std::span<float> z;                   // out, [dim of the most levels]
  int* finished;                        // out: levels of z and of the state's new events
  const ItemRows* item_rows = nullptr;  // as SessionInput
};

class StepBatch {
 public:
  // REQUIRES: states of this model; `view` and `lru` outlive the batch.
  StepBatch(const ModelView& view, const std::vector<LruConstants>& lru, std::vector<StepJob> jobs);
  // Once.
  void Run(GoOn go_on);

 private:
  // Matrices [rows, dim] of one block; all but norm1 have a row per session where `last_only`.
  struct Block {
    bool last_only = false;
    std::vector<float> norm1, h_re, h_im, middle, norm2, gated, output;
  };
  struct Complex {
    std::vector<float> re, im;
  };

  // Leaves active who goes on to `level`; false when nobody does.
  bool Choose(int level, GoOn go_on);
  void ComputeLevel(int level);
  void ComputeBlockLevel(size_t block, int level, const std::vector<float>& x);
  void Scan(size_t block, int level);
  // What enters the first block.
  void CopyItem(const ItemRows* item_rows, int32_t item, int level, float* out) const;
  // h of `job` at `level` before its first row, into h_.
  void StartFrom(size_t block, int level, const StepJob& job);
  // h_ of the first block over the items that `level` missed.
  void CatchUp(const StepJob& job, std::span<const int32_t> tokens, int level);
  // h_ = lambda h_ + gamma u
  void Advance(size_t block, int level, const float* u_re, const float* u_im);
  // z, and what the state says about itself.
  void Finish(StepJob& job, int64_t row);

  const ModelView& view_;
  const std::vector<LruConstants>& lru_;
  std::vector<StepJob> jobs_;    // those that go on longest first
  std::vector<int64_t> begins_;  // [jobs + 1], rows of each
  std::vector<int32_t> tokens_;  // [rows]
  bool all_hold_ = true;         // no recurrence anywhere
  int64_t dim_ = 0;              // of the widest
  std::vector<float> items_;     // [rows, dim]
  std::vector<Block> blocks_;
  size_t active_jobs_ = 0;  // that have the level at hand
  std::vector<float> u_re_, u_im_;
  Complex h_;  // of one session, one level
};

}  // namespace nestrec

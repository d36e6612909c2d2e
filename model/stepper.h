// The recurrent step: a session's new events onto its state, instead of its whole history through
// the encoder. The answer is Encoder::Encode's for the session's last max_len items, within 1e-5 of
// its largest value, at every dim and in whatever order dims are asked for.
//
//   NESTREC_ASSIGN_OR_RETURN(auto stepper, Stepper::Create(&encoder));
//   SessionOutput output;
//   stepper->Run({&input, 1}, {&output, 1});
//
// The maths is the encoder's (arXiv 2409.16627, equations 3-9). A state is exact while it holds no
// event from before the window of max_len. Beyond that it runs on where the model forgets: where
// max |lambda|^max_len < kForgotten over the levels asked for, and where, when the stepper was
// made, answers of states that had run on over random items were within kRunOnError of the
// encoder's. Elsewhere every answer beyond max_len events computes the window again.
//
// Costs: one event at the widest level reads every weight once. Levels are computed as far as they
// are asked for. A level that lags behind catches up over the items it missed, in a model of one
// block with its own rows alone, in others by a replay.
//
// A session's bits do not depend on the other sessions of its batch.
//
// Thread safety: const methods may run in parallel; each call has its own working memory, about
// (7 blocks + 1) * rows * dim floats, where rows are the items to compute.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/encoder.h"
#include "model/session_state.h"
#include "model/step_batch.h"
#include "model/step_plan.h"

namespace nestrec {

struct SessionOutput {
  int finished = 0;      // levels: those asked for, or more as far as there was time
  std::vector<float> z;  // [dim of the finished levels]
  SessionState state;    // the session's afterwards: what to keep
  StepWay way = StepWay::kRemembered;
  int64_t computed = 0;  // items that were computed for it
};

class Stepper {
 public:
  static constexpr double kForgotten = 1e-6;
  // Half of what is promised: the sessions of the test are samples.
  static constexpr double kRunOnError = 5e-6;

  // `encoder` must outlive the stepper. kFailedPrecondition for a model whose mixer is not an LRU:
  // encode its sessions' items instead.
  static absl::StatusOr<std::unique_ptr<const Stepper>> Create(const Encoder* encoder);

  const NestedSizes& sizes() const { return encoder_->sizes(); }
  int max_len() const { return encoder_->max_len(); }
  // Planes of this model's states.
  int planes() const { return 2 * static_cast<int>(lru_.size()) + 1; }
  // Whether states run on beyond max_len events at these levels.
  bool runs_on(int levels) const { return runs_on_[static_cast<size_t>(levels) - 1]; }
  // Multiplications and additions of one event's step at these levels.
  int64_t StepFlops(int levels) const;
  // Bytes of the weights that it reads.
  int64_t StepBytes(int levels) const;

  // Fills outputs[i] for inputs[i]; states must be those of this stepper's model. Levels may differ
  // within a call. kInvalidArgument for levels outside 1..sizes().levels(), an item number outside
  // 0..item_rows-1 (`more`: 1..item_rows-1), an end below the number of items, most_levels below
  // levels, or other counts of inputs and outputs.
  //
  // Beyond its `levels` an input goes on level by level while `go_on` says so (encoder.h; `row` is
  // the input's place), and nothing is computed twice for it. It stops before a level that its
  // state cannot be widened to by that level's own rows: one that would need a replay.
  absl::Status Run(std::span<const SessionInput> inputs, std::span<SessionOutput> outputs,
                   GoOn go_on) const;
  // At `levels`.
  absl::Status Run(std::span<const SessionInput> inputs, std::span<SessionOutput> outputs) const {
    return Run(inputs, outputs, [](size_t, int) { return false; });
  }

 private:
  explicit Stepper(const Encoder* encoder) : encoder_(encoder) {}
  absl::Status Check(const SessionInput& input) const;
  absl::StatusOr<double> MeasureRunOn(int levels) const;

  const Encoder* encoder_;
  std::vector<LruConstants> lru_;  // [blocks]
  std::vector<char> runs_on_;      // [levels]
};

}  // namespace nestrec

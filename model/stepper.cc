#include "model/stepper.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "model/row_products.h"
#include "model/step_batch.h"

namespace nestrec {
namespace {

// Sessions of the run-on test, and how many windows long they are.
constexpr int kMeasuredSessions = 4;
constexpr int kMeasuredWindows = 3;

int64_t WeightsOf(const BlockLevel& level) {
  size_t count = 0;
  for (const LinearLevel* linear : {&level.lru.b_re, &level.lru.b_im, &level.lru.c_re,
                                    &level.lru.c_im, &level.wg, &level.w1, &level.w2}) {
    count += linear->weight.size();
  }
  return static_cast<int64_t>(count);
}

}  // namespace

absl::StatusOr<std::unique_ptr<const Stepper>> Stepper::Create(const Encoder* encoder) {
  const ModelView& view = encoder->view();
  if (view.architecture.mixer != Mixer::kLru) {
    return absl::FailedPreconditionError(
        absl::StrCat("a session's state is kept for models whose mixer is lru; this one's is ",
                     MixerName(view.architecture.mixer)));
  }
  std::unique_ptr<Stepper> stepper(new Stepper(encoder));
  // Per level, over all blocks.
  std::vector<double> largest(static_cast<size_t>(view.sizes.levels()), 0.0);
  for (const std::vector<BlockLevel>& block : view.blocks) {
    stepper->lru_.push_back(LruConstantsOf(block));
    for (size_t level = 0; level < block.size(); ++level) {
      for (const float nu_log : block[level].lru.nu_log) {
        largest[level] = std::max(largest[level], std::exp(-std::exp(static_cast<double>(nu_log))));
      }
    }
  }
  stepper->runs_on_.assign(largest.size(), 0);
  double radius = 0;
  for (size_t level = 0; level < largest.size(); ++level) {
    radius = std::max(radius, largest[level]);
    if (!(std::pow(radius, view.max_len) < kForgotten)) break;
    const int levels = static_cast<int>(level) + 1;
    stepper->runs_on_[level] = 1;  // so that the sessions of the test do
    NESTREC_ASSIGN_OR_RETURN(const double error, stepper->MeasureRunOn(levels));
    stepper->runs_on_[level] = error <= kRunOnError ? 1 : 0;
  }
  return stepper;
}

absl::StatusOr<double> Stepper::MeasureRunOn(int levels) const {
  const ModelView& view = encoder_->view();
  Random random(0x5e551045, static_cast<uint64_t>(levels));
  double worst = 0;
  std::vector<float> expected(static_cast<size_t>(view.sizes.end(levels - 1)));
  for (int session = 0; session < kMeasuredSessions; ++session) {
    std::vector<int32_t> items;
    SessionOutput output;
    // Half a window at a time, so that no answer is a replay.
    const int64_t stride = std::max(1, view.max_len / 2);
    for (int64_t end = stride; end <= kMeasuredWindows * int64_t{view.max_len}; end += stride) {
      while (static_cast<int64_t>(items.size()) < end) {
        items.push_back(static_cast<int32_t>(1 + random.Index(view.item_rows - 1)));
      }
      const History window =
          History(items).last(static_cast<size_t>(std::min<int64_t>(end, view.max_len)));
      const SessionState state = std::move(output.state);
      const SessionInput input{
          .state = &state, .items = window, .end = end, .more = {}, .levels = levels};
      NESTREC_RETURN_IF_ERROR(Run({&input, 1}, {&output, 1}));
      NESTREC_RETURN_IF_ERROR(encoder_->Encode({&window, 1}, levels, expected));
      double size = 0;
      double error = 0;
      for (size_t c = 0; c < expected.size(); ++c) {
        size = std::max(size, std::abs(static_cast<double>(expected[c])));
        error = std::max(error, std::abs(static_cast<double>(expected[c]) - output.z[c]));
      }
      worst = std::max(worst, size > 0 ? error / size : error);
    }
  }
  return worst;
}

int64_t Stepper::StepFlops(int levels) const {
  return 2 * StepBytes(levels) / static_cast<int64_t>(sizeof(float));
}

int64_t Stepper::StepBytes(int levels) const {
  int64_t weights = 0;
  for (const std::vector<BlockLevel>& block : encoder_->view().blocks) {
    for (int level = 0; level < levels; ++level)
      weights += WeightsOf(block[static_cast<size_t>(level)]);
  }
  return weights * static_cast<int64_t>(sizeof(float));
}

absl::Status Stepper::Check(const SessionInput& input) const {
  const ModelView& view = encoder_->view();
  for (const auto& [name, levels] :
       {std::pair("levels", input.levels), std::pair("most_levels", input.most())}) {
    if (levels < 1 || levels > view.sizes.levels()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": ", levels, " is outside 1..",
                                                     view.sizes.levels(),
                                                     ", the levels of this model"));
    }
  }
  if (input.most() < input.levels) {
    return absl::InvalidArgumentError(absl::StrCat("most_levels: ", input.most(),
                                                   " is less than levels, ", input.levels,
                                                   "; give at least these"));
  }
  if (input.end < static_cast<int64_t>(input.items.size())) {
    return absl::InvalidArgumentError(absl::StrCat("end: ", input.end, " is less than the ",
                                                   input.items.size(), " items that end there"));
  }
  const auto check = [&](History items, int32_t least, absl::string_view name) -> absl::Status {
    for (const int32_t item : items) {
      const bool has_row = input.item_rows != nullptr && input.item_rows->RowOf(item) != nullptr;
      if (item < least || (item >= view.item_rows && !has_row)) {
        return absl::InvalidArgumentError(absl::StrCat(name, ": item number ", item, " is outside ",
                                                       least, "..", view.item_rows - 1));
      }
    }
    return absl::OkStatus();
  };
  NESTREC_RETURN_IF_ERROR(check(input.items, 0, "items"));
  NESTREC_RETURN_IF_ERROR(check(input.more, 1, "more"));
  if (input.state != nullptr && input.state->levels() > view.sizes.levels()) {
    return absl::InvalidArgumentError(absl::StrCat("state: has ", input.state->levels(),
                                                   " levels, but this model ", view.sizes.levels(),
                                                   "; it is another model's"));
  }
  return absl::OkStatus();
}

absl::Status Stepper::Run(std::span<const SessionInput> inputs, std::span<SessionOutput> outputs,
                          GoOn go_on) const {
  if (inputs.size() != outputs.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(inputs.size(), " inputs, but ", outputs.size(), " outputs"));
  }
  for (const SessionInput& input : inputs) NESTREC_RETURN_IF_ERROR(Check(input));
  return Guard("step", [&]() -> absl::Status {
    const ModelView& view = encoder_->view();
    std::vector<StepJob> jobs;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const SessionInput& input = inputs[i];
      SessionOutput& output = outputs[i];
      AnytimePlan plan = PlanAnytime(input, {.max_len = view.max_len,
                                             .blocks = static_cast<int>(view.blocks.size()),
                                             .runs_on = runs_on_});
      output.state = input.state == nullptr ? SessionState() : *input.state;
      output.state.Grow(view.sizes, plan.sure, planes());
      output.z.resize(static_cast<size_t>(view.sizes.end(plan.most - 1)));
      output.way = plan.steps.way;
      output.computed = static_cast<int64_t>(plan.steps.tokens.size());
      jobs.push_back({.plan = std::move(plan.steps),
                      .levels = plan.sure,
                      .most_levels = plan.most,
                      .row = i,
                      .end = input.end,
                      .state = &output.state,
                      .z = output.z,
                      .finished = &output.finished,
                      .item_rows = input.item_rows});
    }
    StepBatch(view, lru_, std::move(jobs)).Run(go_on);
    for (SessionOutput& output : outputs) {
      output.z.resize(static_cast<size_t>(view.sizes.end(output.finished - 1)));
    }
    return absl::OkStatus();
  });
}

}  // namespace nestrec

#include "model/step_plan.h"

#include <algorithm>
#include <utility>

namespace nestrec {
namespace {

// The known items among `items`.
void AppendKnown(History items, std::vector<int32_t>& tokens) {
  std::copy_if(items.begin(), items.end(), std::back_inserter(tokens),
               [](int32_t item) { return item != 0; });
}

class Planner {
 public:
  Planner(const SessionInput& input, int levels, const StepRules& rules)
      : rules_(rules),
        state_(input.state),
        levels_(levels),
        items_(input.items.last(std::min(input.items.size(), Count(rules.max_len)))),
        more_(input.more.last(std::min(input.more.size(), Count(rules.max_len)))),
        end_(input.end),
        first_(end_ - static_cast<int64_t>(items_.size())),
        window_begin_(std::max(first_, end_ + static_cast<int64_t>(more_.size()) -
                                           static_cast<int64_t>(rules.max_len))),
        may_run_on_(rules.runs_on[Count(levels) - 1] &&
                    items_.size() + more_.size() >= Count(rules.max_len) &&
                    std::none_of(items_.begin(), items_.end(), [](int32_t i) { return i == 0; })) {}

  StepPlan Plan() const {
    if (state_ == nullptr || !IsUsable(0)) return Replay();
    const int64_t reached = state_->absorbed(0).end;
    // Nothing is gained over a replay, which is exact.
    if (reached <= window_begin_ && reached < end_ + static_cast<int64_t>(more_.size())) {
      return Replay();
    }
    StepPlan plan;
    bool has_z = state_->absorbed(0).has_z;
    for (int level = 1; level < levels_; ++level) {
      const bool usable = IsUsable(level) && state_->absorbed(level).end <= reached;
      if (usable && state_->absorbed(level).end == reached) {
        has_z = has_z && state_->absorbed(level).has_z;
        continue;
      }
      if (rules_.blocks > 1) return Replay();
      has_z = false;
      plan.catch_ups.push_back(CatchUpOf(level, usable, reached));
    }
    // Began at the window of this answer, which `more` may have moved beyond the session's.
    plan.keep = window_begin_ == first_ ||
                std::none_of(plan.catch_ups.begin(), plan.catch_ups.end(),
                             [](const StepPlan::CatchUp& catch_up) { return catch_up.from_zero; });
    AppendKnown(ItemsFrom(reached), plan.tokens);
    plan.kept_tokens = static_cast<int64_t>(plan.tokens.size());
    AppendKnown(more_, plan.tokens);
    plan.keep_z = plan.kept_tokens == static_cast<int64_t>(plan.tokens.size());
    plan.way = StepWay::kStepped;
    if (!plan.tokens.empty()) return plan;
    if (has_z) {
      plan.way = StepWay::kRemembered;
      return plan;
    }
    const auto last =
        std::find_if(items_.rbegin(), items_.rend(), [](int32_t i) { return i != 0; });
    if (last == items_.rend()) return Replay();
    plan.tokens = {*last};
    plan.hold = true;
    return plan;
  }

 private:
  static size_t Count(int value) { return static_cast<size_t>(value); }

  // Events [number, end), as far as they are known. REQUIRES: number >= first_.
  History ItemsFrom(int64_t number) const {
    return items_.subspan(static_cast<size_t>(std::min(number, end_) - first_));
  }

  bool IsUsable(int level) const {
    if (level >= state_->levels()) return false;
    const SessionState::Absorbed& absorbed = state_->absorbed(level);
    if (!absorbed.started() || absorbed.end > end_ || absorbed.end < first_) return false;
    return absorbed.begin == window_begin_ || (absorbed.begin < window_begin_ && may_run_on_);
  }

  StepPlan::CatchUp CatchUpOf(int level, bool usable, int64_t reached) const {
    const bool from_zero = !usable || state_->absorbed(level).end <= window_begin_;
    const int64_t begin = from_zero ? window_begin_ : state_->absorbed(level).end;
    StepPlan::CatchUp catch_up{
        .level = level, .from_zero = from_zero, .begin = window_begin_, .tokens = {}};
    if (begin < reached) {
      AppendKnown(ItemsFrom(begin).first(static_cast<size_t>(reached - begin)), catch_up.tokens);
    }
    return catch_up;
  }

  StepPlan Replay() const {
    StepPlan plan{.way = StepWay::kReplayed,
                  .tokens = {},
                  .from_zero = true,
                  .keep = window_begin_ == first_,
                  .begin = window_begin_,
                  .catch_ups = {}};
    AppendKnown(ItemsFrom(window_begin_), plan.tokens);
    plan.kept_tokens = static_cast<int64_t>(plan.tokens.size());
    AppendKnown(more_, plan.tokens);
    plan.keep_z = plan.kept_tokens == static_cast<int64_t>(plan.tokens.size());
    if (plan.tokens.empty()) plan.tokens.push_back(0);
    return plan;
  }

  const StepRules rules_;
  const SessionState* const state_;
  const int levels_;
  const History items_;
  const History more_;
  const int64_t end_;           // the session's
  const int64_t first_;         // the number of items_[0]
  const int64_t window_begin_;  // the number of the window's first event
  const bool may_run_on_;       // max_len steps lie between what is older than the window and z
};

}  // namespace

StepPlan PlanSteps(const SessionInput& input, const StepRules& rules) {
  return Planner(input, input.levels, rules).Plan();
}

AnytimePlan PlanAnytime(const SessionInput& input, const StepRules& rules) {
  AnytimePlan plan{.steps = PlanSteps(input, rules), .sure = input.levels, .most = input.levels};
  for (int levels = input.levels + 1; levels <= input.most(); ++levels) {
    StepPlan wider = Planner(input, levels, rules).Plan();
    const bool replays = plan.steps.way == StepWay::kReplayed;
    // Wherever it is left, the session keeps what it would have kept, by the same rule.
    if ((wider.way == StepWay::kReplayed) != replays || wider.keep != plan.steps.keep ||
        rules.runs_on[static_cast<size_t>(levels) - 1] !=
            rules.runs_on[static_cast<size_t>(input.levels) - 1]) {
      break;
    }
    if (wider.way == StepWay::kRemembered) {
      plan.sure = levels;
    } else if (plan.steps.way == StepWay::kRemembered && plan.sure > input.levels) {
      // It would compute again what is remembered beyond the width that is sure.
      break;
    }
    plan.steps = std::move(wider);
    plan.most = levels;
  }
  return plan;
}

}  // namespace nestrec

// How to come from what a session's state has absorbed to the vector of its newest event: nothing,
// a few steps, levels that catch up, or all over again. Pure arithmetic on event numbers.
//
// The answer is that of the encoder on the window: the last max_len events, `more` included. A
// state that began where the window begins is exact. One that began earlier also holds older
// events; it may run on only where the model is known to forget them (`runs_on`) and every event of
// the window was a step.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/item_rows.h"
#include "model/session_state.h"

namespace nestrec {

using History = std::span<const int32_t>;  // as encoder.h

struct SessionInput {
  const SessionState* state = nullptr;  // what was kept of the session; may be null
  // The session's newest events as item numbers, oldest first, 0 for one that the catalogue does
  // not have: the last max_len, or all when there are fewer. Older ones are ignored.
  History items;
  int64_t end = 0;  // the number after the newest event's: how many were ever recorded
  // Item numbers that follow for this answer alone and are not part of the session.
  History more;
  int levels = 0;       // at least these
  int most_levels = 0;  // up to these, as long as there is time; 0: as levels
  // Has items that the model's table does not have, or has otherwise; may be null. Those that the
  // state has absorbed must not have changed since.
  const ItemRows* item_rows = nullptr;

  int most() const { return most_levels == 0 ? levels : most_levels; }
};

// Where an answer came from.
enum class StepWay {
  kRemembered,  // nothing was computed
  kStepped,     // the state ran on over what it had not absorbed
  kReplayed,    // the window's events were computed from the first
};

struct StepPlan {
  StepWay way = StepWay::kRemembered;
  // Rows to compute, oldest first. {0}, the padding item, stands for an empty history.
  std::vector<int32_t> tokens;
  int64_t kept_tokens = 0;  // the first of them that the session's state absorbs
  bool from_zero = false;   // start from h = 0 and not from the state
  bool hold = false;   // z of the state as it is: tokens is the last event's item, no recurrence
  bool keep = true;    // whether the state afterwards is the session's
  bool keep_z = true;  // whether z belongs to the session's last event
  int64_t begin = 0;   // with from_zero: the number of the first event

  // Levels that first come to where level 0 stands. Only in models of one block: there a level's
  // recurrence reads nothing but items.
  struct CatchUp {
    int level;
    bool from_zero;
    int64_t begin;  // with from_zero
    std::vector<int32_t> tokens;
  };
  std::vector<CatchUp> catch_ups;
};

struct StepRules {
  int max_len = 0;
  int blocks = 0;
  std::span<const char> runs_on;  // [levels] whether states run on at 1, 2, ... levels
};

// For input.levels alone.
StepPlan PlanSteps(const SessionInput& input, const StepRules& rules);

// A plan for up to input.most() levels, that costs input.levels what their own plan does: it may
// be left at any level from `sure` on.
struct AnytimePlan {
  StepPlan steps;
  int sure =
      0;  // levels that are computed in any case; more than asked for where they cost nothing
  int most = 0;  // levels that may be; fewer than asked for where they would need a replay
};

AnytimePlan PlanAnytime(const SessionInput& input, const StepRules& rules);

}  // namespace nestrec

// A call on its way through a batch. Private to the engine's two files: recommend_engine.cc
// decides, recommend_stages.cc encodes, searches and completes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/recommend_engine.h"

namespace nestrec {

// Budgets beyond it are none: sums of times stay in range.
constexpr absl::Duration kLongestBudget = absl::Hours(24);

inline Instant After(Instant from, absl::Duration time) {
  return time > kLongestBudget ? Instant::max() : from + absl::ToChronoNanoseconds(time);
}

struct RecommendEngine::Place {
  std::unique_ptr<BatchItem> item;
  WidthDecision width;
  std::vector<float> z;      // [dim of the most levels]
  int64_t rows = 1;          // to encode; 0: nothing
  int64_t explain_rows = 0;  // to encode once the items are known
  int held_levels = WidthHold::kFree;
  bool ran_out = false;  // of time, at the levels that are finished
  bool failed = false;

  RecommendCall& call() const { return static_cast<RecommendCall&>(*item); }
  bool has_session() const { return call().query.session.has_value(); }
  bool is_similar() const { return call().query.similar_to.has_value(); }
  bool wants_vector() const { return call().query.vector_only; }
  bool has_history() const { return !has_session() && !is_similar(); }
  Instant ends() const {
    const absl::Duration budget =
        call().query.width.latency_budget.value_or(absl::InfiniteDuration());
    return std::min(call().deadline, After(call().arrived, budget));
  }
  // What was encoded, at least width.levels and at most width.most_levels.
  void Finished(const NestedSizes& sizes, int levels) {
    if (levels == width.levels) return;
    width.levels = levels;
    width.dim = sizes.end(levels - 1);
    if (levels == width.most_levels) width.why = width.most_why;
  }
  void Fail(const absl::Status& why) {
    failed = true;
    call().Fail(why);
  }
};

}  // namespace nestrec

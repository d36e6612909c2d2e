// Which width a request is served at. A pure function: what it decides follows from its arguments
// alone.
//
// An explicit dim is what it says, whatever the load. Else the tier has a range, and
//   1. `min_quality`, where given, asks for the narrowest dim that keeps it, else the widest
//   counts;
//   2. load takes widths off the tier's widest (server/overload_controller.h);
//   3. of what is left, the widest that the predicted costs fit into the time that is left is
//      taken: the latency budget or the deadline, whichever ends first. What did not fit lately is
//      held back for a while (server/width_hold.h).
// None of it leaves the tier's range: where even its narrowest does not fit, that one is served.
//
// Thread safety: pure.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/nested_sizes.h"
#include "server/tiers.h"
#include "server/width_hold.h"

namespace nestrec {

// What a request says about its width: at most one of dim and tier.
struct WidthRequest {
  std::optional<int> dim = {};
  std::optional<std::string> tier = {};
  std::optional<absl::Duration> latency_budget = {};  // from arrival to answer
  std::optional<double> min_quality = {};             // a share of the widest size's Recall@10
};

// What kept the width from being another one.
enum class WidthReason {
  kExplicit,  // the request named the dim
  kTier,      // the widest of the tier that the request named
  kDefault,   // the widest of the default tier: the request named neither
  kQuality,   // the narrowest that keeps the quality asked for
  kLoad,      // more work than time
  kBudget,    // the widest that fits into the request's latency budget
  kDeadline,  // the widest that fits into the call's deadline
};

// "explicit", "tier", ...: for metrics and logs. Static.
absl::string_view WidthReasonName(WidthReason reason);

struct WidthDecision {
  int dim = 0;
  int levels = 0;    // of dim
  std::string tier;  // empty for an explicit dim
  IndexSpec index;   // an explicit dim is searched exactly
  WidthReason why = WidthReason::kDefault;

  // Levels from `levels` on that may fit, but not surely: to be computed one by one for as long as
  // there is time. Equal to `levels` where all is sure. `most_why` is why it is not more than
  // most_levels; at fewer it is `why`.
  int most_levels = 0;
  WidthReason most_why = WidthReason::kDefault;

  // For WidthHold: what time allows in the tier's range, whatever load, quality and it itself do.
  // No range for an explicit dim.
  WidthHold::Fit fit = {.may = 0, .well = 0, .widest = 0};
};

// What a model serves.
struct ServedWidths {
  const NestedSizes* sizes;
  // [levels]: Recall@10 as a share of the widest size's, of which the model's metrics tell; empty
  // where it was never evaluated.
  std::span<const double> quality = {};
};

// Costs are what is still to be done for the request, for 1, 2, ... levels, never falling; empty:
// unknown, so that every width fits.
struct WidthConditions {
  absl::Duration spent = absl::ZeroDuration();  // since the request's arrival
  absl::Duration deadline_left = absl::InfiniteDuration();
  int narrowing = 0;                                 // widths that the load takes
  std::span<const absl::Duration> costs = {};        // that are hardly ever exceeded
  std::span<const absl::Duration> usual_costs = {};  // that are exceeded half of the time
  int held_levels = WidthHold::kFree;  // that time allows at most, by what it did lately
};

// kInvalidArgument with a field violation (status_details.h) that lists what there is, for a dim
// that is not one of the sizes, an unknown tier, and a min_quality beside a dim or of a model that
// has no metrics.
absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const ServedWidths& served,
                                          const WidthConditions& conditions);

// Without load and limits.
absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const NestedSizes& sizes);

}  // namespace nestrec

#include "server/policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

// Room for rounding: a width with exactly the quality asked for keeps it.
constexpr double kQualityTolerance = 1e-9;

// The most levels up to `most`, at least `least`, whose cost, times `margin`, is within `time`.
int Fitting(std::span<const absl::Duration> costs, absl::Duration time, int least, int most,
            double margin = 1) {
  if (costs.empty()) return most;
  int levels = most;
  while (levels > least && costs[static_cast<size_t>(levels) - 1] * margin > time) --levels;
  return levels;
}

absl::StatusOr<WidthDecision> Explicit(const WidthRequest& request, const NestedSizes& sizes) {
  const absl::StatusOr<int> levels = sizes.LevelsOf(*request.dim);
  if (!levels.ok()) {
    return BadRequest({{"dim", absl::StrCat(*request.dim, " is not one of the sizes served here: ",
                                            sizes.ToString())}});
  }
  if (request.min_quality.has_value()) {
    return BadRequest(
        {{"min_quality", "asks for a dim to be chosen, but dim names one; leave one of them out"}});
  }
  return WidthDecision{.dim = *request.dim,
                       .levels = *levels,
                       .tier = "",
                       .index = {},
                       .why = WidthReason::kExplicit,
                       .most_levels = *levels,
                       .most_why = WidthReason::kExplicit};
}

}  // namespace

absl::string_view WidthReasonName(WidthReason reason) {
  switch (reason) {
    case WidthReason::kExplicit:
      return "explicit";
    case WidthReason::kTier:
      return "tier";
    case WidthReason::kDefault:
      return "default";
    case WidthReason::kQuality:
      return "quality";
    case WidthReason::kLoad:
      return "load";
    case WidthReason::kBudget:
      return "budget";
    case WidthReason::kDeadline:
      return "deadline";
  }
  return "unknown";
}

absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const ServedWidths& served,
                                          const WidthConditions& conditions) {
  if (request.dim.has_value()) return Explicit(request, *served.sizes);
  const Tier* tier = request.tier.has_value() ? tiers.Find(*request.tier) : &tiers.default_tier();
  if (tier == nullptr) {
    // The limit on what a client sees of its own input is the validator's business; a name is short
    // here.
    return BadRequest({{"tier", absl::StrCat("\"", *request.tier,
                                             "\" is not one of the tiers here: ", tiers.Names())}});
  }
  NESTREC_ASSIGN_OR_RETURN(const int widest, served.sizes->LevelsOf(tier->dim));
  NESTREC_ASSIGN_OR_RETURN(const int narrowest, served.sizes->LevelsOf(tier->narrowest()));
  int levels = widest;
  WidthReason why = request.tier.has_value() ? WidthReason::kTier : WidthReason::kDefault;

  if (request.min_quality.has_value()) {
    if (served.quality.empty()) {
      return BadRequest({{"min_quality",
                          "this model was never evaluated, so that nothing is known of its sizes' "
                          "quality; name a dim or a tier"}});
    }
    for (int enough = narrowest; enough <= widest; ++enough) {
      if (served.quality[static_cast<size_t>(enough) - 1] >=
          *request.min_quality - kQualityTolerance) {
        levels = enough;
        why = WidthReason::kQuality;
        break;
      }
    }
  }
  if (const int allowed = std::max(narrowest, widest - conditions.narrowing); allowed < levels) {
    levels = allowed;
    why = WidthReason::kLoad;
  }

  const absl::Duration budget_left =
      request.latency_budget.value_or(absl::InfiniteDuration()) - conditions.spent;
  const absl::Duration left = std::min(budget_left, conditions.deadline_left);
  const WidthReason limit =
      budget_left < conditions.deadline_left ? WidthReason::kBudget : WidthReason::kDeadline;
  const int most = std::clamp(conditions.held_levels, narrowest, levels);
  const int safe = Fitting(conditions.costs, left, narrowest, most);
  // A width whose usual cost is known is never hoped for beyond it; one whose cost is not is tried.
  const int hoped = Fitting(conditions.usual_costs, left, safe, most);
  const WidthHold::Fit fit = {
      .may = std::max(Fitting(conditions.costs, left, narrowest, widest),
                      Fitting(conditions.usual_costs, left, narrowest, widest)),
      .well = Fitting(conditions.usual_costs, left, narrowest, widest, WidthHold::kMargin),
      .widest = widest};
  return WidthDecision{.dim = served.sizes->end(safe - 1),
                       .levels = safe,
                       .tier = tier->name,
                       .index = tier->index,
                       .why = safe < levels ? limit : why,
                       .most_levels = hoped,
                       .most_why = hoped < levels ? limit : why,
                       .fit = fit};
}

absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const NestedSizes& sizes) {
  return ChooseWidth(request, tiers, {.sizes = &sizes}, {});
}

}  // namespace nestrec

#include "server/policy.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/status_details.h"

namespace nestrec {

absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const NestedSizes& sizes) {
  if (request.dim.has_value()) {
    const absl::StatusOr<int> levels = sizes.LevelsOf(*request.dim);
    if (!levels.ok()) {
      return BadRequest(
          {{"dim", absl::StrCat(*request.dim,
                                " is not one of the sizes served here: ", sizes.ToString())}});
    }
    return WidthDecision{.dim = *request.dim,
                         .levels = *levels,
                         .tier = "",
                         .index = {},
                         .why = WidthReason::kExplicit};
  }
  const Tier* tier = request.tier.has_value() ? tiers.Find(*request.tier) : &tiers.default_tier();
  if (tier == nullptr) {
    // The limit on what a client sees of its own input is the validator's business; a name is short
    // here.
    return BadRequest({{"tier", absl::StrCat("\"", *request.tier,
                                             "\" is not one of the tiers here: ", tiers.Names())}});
  }
  NESTREC_ASSIGN_OR_RETURN(const int levels, sizes.LevelsOf(tier->dim));
  return WidthDecision{
      .dim = tier->dim,
      .levels = levels,
      .tier = tier->name,
      .index = tier->index,
      .why = request.tier.has_value() ? WidthReason::kTier : WidthReason::kDefault};
}

}  // namespace nestrec

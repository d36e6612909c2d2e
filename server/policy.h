// Which width a request is served at. A pure function: what it decides follows from its arguments
// alone.
//
// Thread safety: pure.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"
#include "server/tiers.h"

namespace nestrec {

// What a request says about its width: at most one of the two.
struct WidthRequest {
  std::optional<int> dim;
  std::optional<std::string> tier;
};

enum class WidthReason {
  kExplicit,  // the request named the dim
  kTier,      // the request named the tier
  kDefault,   // it named neither
};

struct WidthDecision {
  int dim = 0;
  int levels = 0;    // of dim
  std::string tier;  // empty for an explicit dim
  IndexSpec index;   // an explicit dim is searched exactly
  WidthReason why = WidthReason::kDefault;
};

// kInvalidArgument with a field violation (status_details.h) that lists what there is, for a dim
// that is not one of `sizes` or an unknown tier.
absl::StatusOr<WidthDecision> ChooseWidth(const WidthRequest& request, const TierTable& tiers,
                                          const NestedSizes& sizes);

}  // namespace nestrec

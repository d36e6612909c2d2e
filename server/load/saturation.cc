#include "server/load/saturation.h"

#include <algorithm>
#include <cmath>

#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<Saturation> FindSaturation(
    const SaturationOptions& options,
    const std::function<absl::StatusOr<double>(double rate)>& goodput_at) {
  Saturation saturation;
  const auto sustains = [&](double rate) -> absl::StatusOr<bool> {
    for (int attempt = 0; attempt < 2; ++attempt) {
      NESTREC_ASSIGN_OR_RETURN(const double goodput, goodput_at(rate));
      saturation.peak_goodput = std::max(saturation.peak_goodput, goodput);
      if (goodput >= options.share * rate) {
        saturation.sustained_rate = std::max(saturation.sustained_rate, rate);
        return true;
      }
    }
    return false;
  };

  double low = std::min(options.first_rate, options.highest_rate);
  NESTREC_ASSIGN_OR_RETURN(bool sustained, sustains(low));
  double high = low;
  if (sustained) {
    while (sustained) {
      if (low >= options.highest_rate) return saturation;
      high = std::min(low * options.growth, options.highest_rate);
      NESTREC_ASSIGN_OR_RETURN(sustained, sustains(high));
      if (sustained) low = high;
    }
  } else {
    while (!sustained) {
      high = low;
      low /= 2;
      if (low < options.first_rate / 64) {
        saturation.reached = true;
        return saturation;
      }
      NESTREC_ASSIGN_OR_RETURN(sustained, sustains(low));
    }
  }
  while (high > low * options.precision) {
    const double middle = std::sqrt(low * high);
    NESTREC_ASSIGN_OR_RETURN(sustained, sustains(middle));
    (sustained ? low : high) = middle;
  }
  saturation.reached = true;
  return saturation;
}

}  // namespace nestrec

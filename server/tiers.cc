#include "server/tiers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/printable.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr char kWidestTier[] = "gold";

// 0 where there is none.
int WidestUpTo(int at_most, const NestedSizes& sizes) {
  int dim = 0;
  for (const int size : sizes.values()) {
    dim = size <= at_most ? size : dim;
  }
  return dim;
}

Tier DefaultTier(const char* name, int dim, const NestedSizes& sizes, IndexSpec index = {}) {
  return {
      .name = name, .dim = dim, .index = std::move(index), .min_dim = WidestUpTo(dim / 4, sizes)};
}

std::vector<Tier> DefaultTiers(const NestedSizes& sizes) {
  std::vector<Tier> tiers = {DefaultTier(kWidestTier, sizes.max_dim(), sizes)};
  const auto add = [&](const char* name, int at_most, const IndexSpec& index) {
    const int dim = WidestUpTo(at_most, sizes);
    if (dim > 0 && dim < tiers.back().dim) {
      tiers.push_back(DefaultTier(name, dim, sizes, index));
    }
  };
  add("silver", sizes.max_dim() / 4, {});
  // So narrow that FAISS's flat scan is as fast.
  add("bronze", sizes.max_dim() / 16, {.factory = "Flat"});
  return tiers;
}

std::string JoinNames(const std::vector<Tier>& tiers) {
  return absl::StrJoin(tiers, ", ",
                       [](std::string* out, const Tier& tier) { absl::StrAppend(out, tier.name); });
}

size_t IndexOf(const std::vector<Tier>& tiers, absl::string_view name) {
  const auto found =
      std::find_if(tiers.begin(), tiers.end(), [&](const Tier& tier) { return tier.name == name; });
  return static_cast<size_t>(found - tiers.begin());
}

}  // namespace

absl::StatusOr<TierTable> TierTable::Create(const TierSettings& settings,
                                            const NestedSizes& sizes) {
  const std::string where = settings.source.empty() ? "" : absl::StrCat(settings.source, ": ");
  std::vector<Tier> tiers = settings.tiers.empty() ? DefaultTiers(sizes) : settings.tiers;
  for (const Tier& tier : tiers) {
    if (!sizes.LevelsOf(tier.dim).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, "tier \"", tier.name, "\" has dim ", tier.dim,
                       "; the model as loaded has the sizes ", sizes.ToString()));
    }
    if (!sizes.LevelsOf(tier.narrowest()).ok() || tier.narrowest() > tier.dim) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, "tier \"", tier.name, "\" has min_dim ", tier.min_dim,
          "; give one of the model's sizes up to its widest, ", tier.dim, ": ", sizes.ToString()));
    }
  }
  const bool named = !settings.default_tier.empty();
  const size_t index =
      IndexOf(tiers, named ? absl::string_view(settings.default_tier) : kWidestTier);
  if (named && index == tiers.size()) {
    return absl::InvalidArgumentError(absl::StrCat(where, "default_tier is \"",
                                                   Printable(settings.default_tier),
                                                   "\"; the tiers are ", JoinNames(tiers)));
  }
  return TierTable(tiers, index == tiers.size() ? 0 : index);
}

const Tier* TierTable::Find(absl::string_view name) const {
  const size_t index = IndexOf(tiers_, name);
  return index == tiers_.size() ? nullptr : &tiers_[index];
}

std::string TierTable::Names() const { return JoinNames(tiers_); }

}  // namespace nestrec

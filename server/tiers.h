// Tiers: the serving classes that a request may name, each a range of widths, an index and a place
// in the queue.
//
// Thread safety: values; a TierTable is immutable once made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/nested_sizes.h"

namespace nestrec {

// Which index a tier searches.
struct IndexSpec {
  // "auto" (server/index_builder.h), "nested", or a FAISS factory string.
  std::string factory = "auto";
  std::string parameters;  // FAISS search settings; empty: its defaults
  int candidates = 32;     // ranked again beyond k, of an approximate index

  friend auto operator<=>(const IndexSpec&, const IndexSpec&) = default;
};

struct Tier {
  std::string name;
  int dim = 0;  // the widest that it serves
  IndexSpec index;
  int min_dim = 0;         // the narrowest; 0: dim
  int64_t max_k = 0;       // of its requests; 0: the server's
  double queue_share = 1;  // of the queue and of the workers, to that of the other tiers
  int priority = 0;        // work of a higher one goes first
  absl::Duration latency_budget = absl::InfiniteDuration();  // of requests that name none

  int narrowest() const { return min_dim == 0 ? dim : min_dim; }

  friend bool operator==(const Tier&, const Tier&) = default;
};

// What the config file says, not yet held against a model.
struct TierSettings {
  std::vector<Tier> tiers;                      // empty: the default tiers
  std::string default_tier;                     // empty: "gold" where there is one, else the first
  std::vector<std::string> filter_fields = {};  // of the catalogue, for filters and caps; none: all
  std::string source = {};                      // the file that says it, for messages; empty: none
};

// Tiers that fit a model.
class TierTable {
 public:
  // kInvalidArgument, naming the source, the tier and the sizes, for a dim or min_dim that is not
  // one of `sizes`, a min_dim above the dim, and a default tier that is not in the table. With no
  // tiers in the settings: gold at D, silver at the widest size up to D/4, bronze at the widest up
  // to D/16, with "Flat" as its index, as far as there are such sizes and they differ; each down to
  // the widest size up to a quarter of its own, where there is one.
  static absl::StatusOr<TierTable> Create(const TierSettings& settings, const NestedSizes& sizes);

  const std::vector<Tier>& tiers() const { return tiers_; }
  const Tier& default_tier() const { return tiers_[default_index_]; }
  // Null when there is none of that name.
  const Tier* Find(absl::string_view name) const;
  // "gold, silver, bronze".
  std::string Names() const;

 private:
  TierTable(std::vector<Tier> tiers, size_t default_index)
      : tiers_(std::move(tiers)), default_index_(default_index) {}

  std::vector<Tier> tiers_;  // at least one
  size_t default_index_;
};

}  // namespace nestrec

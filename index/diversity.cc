#include "index/diversity.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/score.h"

namespace nestrec {
namespace {

// Asked for beyond what is missing, so that a second search is rare.
constexpr int64_t kSpare = 16;

// How many items of each value have been taken.
class GroupCounts {
 public:
  GroupCounts(const AttributeTable& table, std::span<const GroupCap> caps)
      : table_(table), caps_(caps), counts_(caps.size()) {}

  // Takes the item unless it would be too much of something.
  bool Take(int32_t item) {
    for (size_t cap = 0; cap < caps_.size(); ++cap) {
      for (const AttributeTable::ValueId value : table_.ValuesOf(caps_[cap].field, item)) {
        const auto count = counts_[cap].find(value);
        if (count != counts_[cap].end() && count->second >= caps_[cap].most) {
          return false;
        }
      }
    }
    for (size_t cap = 0; cap < caps_.size(); ++cap) {
      for (const AttributeTable::ValueId value : table_.ValuesOf(caps_[cap].field, item)) {
        if (++counts_[cap][value] == caps_[cap].most) {
          used_up_.push_back(table_.ItemsOf(caps_[cap].field, value));
        }
      }
    }
    return true;
  }

  // Items of the values that were used up since the last call.
  ItemSet TakeUsedUp() { return ItemSet::Union(std::exchange(used_up_, {})); }

 private:
  const AttributeTable& table_;
  std::span<const GroupCap> caps_;
  std::vector<absl::flat_hash_map<AttributeTable::ValueId, int32_t>> counts_;  // per cap
  std::vector<ItemSet> used_up_;
};

absl::StatusOr<SearchResult> Walk(const ItemIndex& index, std::span<const float> query,
                                  const SearchOptions& options, const AttributeTable& table,
                                  std::span<const GroupCap> caps) {
  ItemFilter filter =
      options.filter != nullptr ? *options.filter : ItemFilter::Excluding(index.items(), {});
  GroupCounts counts(table, caps);
  SearchResult taken{.items = {}, .exact = true, .rescored = 0};
  SearchOptions ask = options;
  ask.filter = &filter;
  while (true) {
    const auto missing = options.k - static_cast<int64_t>(taken.items.size());
    // No item number reaches 2^32: no overflow below.
    ask.k = 2 * std::min(missing, index.items()) + kSpare;
    NESTREC_ASSIGN_OR_RETURN(const SearchResult found, index.Search(query, ask));
    taken.exact = taken.exact && found.exact;
    taken.rescored += found.rescored;
    std::vector<int32_t> seen;
    for (const ScoredItem& item : found.items) {
      seen.push_back(item.item);
      if (counts.Take(item.item)) {
        taken.items.push_back(item);
        if (static_cast<int64_t>(taken.items.size()) == options.k) {
          break;
        }
      }
    }
    // Fewer than asked for: there are no more. The first one found is always taken, so this ends.
    if (static_cast<int64_t>(taken.items.size()) == options.k ||
        static_cast<int64_t>(found.items.size()) < ask.k) {
      // Already so when the searches are exact.
      std::sort(taken.items.begin(), taken.items.end(), RanksBefore);
      return taken;
    }
    filter = filter.And(ItemFilter::Excluding(index.items(), seen))
                 .And(ItemFilter::Allowing(index.items(), counts.TakeUsedUp()).Not());
  }
}

// Sixteen sums at once, so that compilers vectorise it in this order.
float FloatDot(const float* a, const float* b, size_t length) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes] = {};
  const size_t whole = length / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += a[i + lane] * b[i + lane];
    }
  }
  for (size_t i = whole; i < length; ++i) {
    lanes[i - whole] += a[i] * b[i];
  }
  float sum = 0;
  for (const float lane : lanes) {
    sum += lane;
  }
  return sum;
}

// Vectors of length 1 (or 0), [candidates, dim].
std::vector<float> UnitVectors(std::span<const ScoredItem> candidates, const LevelVectors& vectors,
                               int levels) {
  const auto dim = static_cast<size_t>(vectors.sizes.end(levels - 1));
  std::vector<float> units(candidates.size() * dim);
  auto out = units.begin();
  for (const ScoredItem& candidate : candidates) {
    double squares = 0;
    for (int level = 0; level < levels; ++level) {
      const std::span<const float> part = vectors.row(level, candidate.item);
      squares += Dot(part, part);
    }
    const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (int level = 0; level < levels; ++level) {
      for (const float value : vectors.row(level, candidate.item)) {
        *out++ = static_cast<float>(value * scale);
      }
    }
  }
  return units;
}

}  // namespace

absl::StatusOr<SearchResult> SearchWithCaps(const ItemIndex& index, std::span<const float> query,
                                            const SearchOptions& options,
                                            const AttributeTable& table,
                                            std::span<const GroupCap> caps) {
  if (caps.empty() || options.k < 1) {
    return index.Search(query, options);
  }
  return Guard("searching with caps", [&] { return Walk(index, query, options, table, caps); });
}

std::vector<ScoredItem> PickDiverse(std::span<const ScoredItem> candidates,
                                    const LevelVectors& vectors, int levels, double weight,
                                    int64_t k) {
  const size_t count = candidates.size();
  const size_t wanted = std::min(count, static_cast<size_t>(std::max<int64_t>(k, 0)));
  if (wanted == 0) {
    return {};
  }
  const auto dim = static_cast<size_t>(vectors.sizes.end(levels - 1));
  const std::vector<float> units = UnitVectors(candidates, vectors, levels);
  const double lowest = candidates.back().score;
  const double spread = static_cast<double>(candidates.front().score) - lowest;
  // Before anything is picked the second term is the same for all.
  std::vector<double> closest(count, 0);
  std::vector<bool> is_picked(count, false);
  std::vector<ScoredItem> picked;
  picked.reserve(wanted);
  while (picked.size() < wanted) {
    size_t best = count;
    double best_value = 0;
    for (size_t i = 0; i < count; ++i) {
      const double relevance = spread > 0 ? (candidates[i].score - lowest) / spread : 1;
      const double value = weight * relevance - (1 - weight) * closest[i];
      if (!is_picked[i] && (best == count || value > best_value)) {
        best = i;
        best_value = value;
      }
    }
    const bool is_first = picked.empty();
    is_picked[best] = true;
    picked.push_back(candidates[best]);
    for (size_t i = 0; i < count; ++i) {
      if (!is_picked[i]) {
        const double cosine = FloatDot(&units[i * dim], &units[best * dim], dim);
        closest[i] = is_first ? cosine : std::max(closest[i], cosine);
      }
    }
  }
  return picked;
}

}  // namespace nestrec

#include "index/diversity.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
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
  GroupCounts(const AttributeView& attributes, std::span<const GroupCap> caps)
      : attributes_(attributes), caps_(caps), groups_(caps.size()) {
    for (size_t cap = 0; cap < caps.size(); ++cap) {
      groups_[cap].field = attributes.table().Find(caps[cap].field);
    }
  }

  // Takes the item unless it would be too much of something.
  bool Take(int32_t item) {
    std::vector<std::vector<GroupId>> of_item;
    for (size_t cap = 0; cap < caps_.size(); ++cap) {
      of_item.push_back(GroupsOf(cap, item));
      for (const GroupId group : of_item.back()) {
        const auto count = groups_[cap].counts.find(group);
        if (count != groups_[cap].counts.end() && count->second >= caps_[cap].most) {
          return false;
        }
      }
    }
    for (size_t cap = 0; cap < caps_.size(); ++cap) {
      for (const GroupId group : of_item[cap]) {
        if (++groups_[cap].counts[group] == caps_[cap].most) {
          used_up_.push_back(ItemsOf(cap, group));
        }
      }
    }
    return true;
  }

  // Items of the values that were used up since the last call.
  ItemSet TakeUsedUp() { return ItemSet::Union(std::exchange(used_up_, {})); }

 private:
  // A value that the table has is called as there; one of changed items alone gets a number from
  // kOwn on.
  using GroupId = int64_t;
  static constexpr GroupId kOwn = int64_t{1} << 32;
  struct Groups {
    std::optional<AttributeTable::FieldId> field;  // of the table
    absl::flat_hash_map<GroupId, int32_t> counts;
    absl::flat_hash_map<std::string, GroupId> own;  // by AttributeTable::Key
  };

  GroupId GroupOf(size_t cap, const AttributeValue& value) {
    Groups& groups = groups_[cap];
    if (groups.field.has_value()) {
      if (const auto known = attributes_.table().FindValue(*groups.field, value)) return *known;
    }
    const GroupId next = kOwn + static_cast<GroupId>(groups.own.size());
    return groups.own.try_emplace(AttributeTable::Key(value), next).first->second;
  }
  // Each once.
  std::vector<GroupId> GroupsOf(size_t cap, const ItemAttributes& item) {
    std::vector<GroupId> ids;
    const ItemAttributes::Field* field = item.Find(caps_[cap].field);
    if (field == nullptr) return ids;
    for (const AttributeValue& value : field->values) ids.push_back(GroupOf(cap, value));
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
  }
  std::vector<GroupId> GroupsOf(size_t cap, int32_t item) {
    if (attributes_.overlay() != nullptr) {
      if (const auto changed = attributes_.overlay()->Find(item)) {
        return *changed == nullptr ? std::vector<GroupId>() : GroupsOf(cap, **changed);
      }
    }
    if (!groups_[cap].field.has_value()) return {};
    const auto values = attributes_.table().ValuesOf(*groups_[cap].field, item);
    return {values.begin(), values.end()};
  }
  ItemSet ItemsOf(size_t cap, GroupId group) {
    ItemSet items;
    if (group < kOwn) {
      items = attributes_.table().ItemsOf(*groups_[cap].field,
                                          static_cast<AttributeTable::ValueId>(group));
    }
    if (attributes_.overlay() == nullptr) return items;
    std::vector<int32_t> changed;
    for (const AttributeOverlay::Changed& item : attributes_.overlay()->changed()) {
      if (item.attributes == nullptr) continue;
      const std::vector<GroupId> groups = GroupsOf(cap, *item.attributes);
      if (std::binary_search(groups.begin(), groups.end(), group)) changed.push_back(item.item);
    }
    return items.Without(attributes_.overlay()->changed_set()).Or(ItemSet::Of(changed));
  }

  const AttributeView attributes_;
  const std::span<const GroupCap> caps_;
  std::vector<Groups> groups_;  // per cap
  std::vector<ItemSet> used_up_;
};

absl::StatusOr<SearchResult> Walk(const ItemIndex& index, std::span<const float> query,
                                  const SearchOptions& options, const AttributeView& attributes,
                                  std::span<const GroupCap> caps) {
  ItemFilter filter =
      options.filter != nullptr ? *options.filter : ItemFilter::Excluding(index.items(), {});
  GroupCounts counts(attributes, caps);
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
std::vector<float> UnitVectors(std::span<const ScoredItem> candidates, CopyVector copy_vector,
                               const NestedSizes& sizes, int levels) {
  const auto dim = static_cast<size_t>(sizes.end(levels - 1));
  std::vector<float> units(candidates.size() * dim);
  for (size_t i = 0; i < candidates.size(); ++i) {
    const std::span<float> unit = std::span(units).subspan(i * dim, dim);
    copy_vector(candidates[i].item, unit);
    double squares = 0;
    for (int level = 0; level < levels; ++level) {
      const auto part = unit.subspan(static_cast<size_t>(sizes.begin(level)),
                                     static_cast<size_t>(sizes.width(level)));
      squares += Dot(part, part);
    }
    const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (float& value : unit) value = static_cast<float>(value * scale);
  }
  return units;
}

}  // namespace

absl::StatusOr<SearchResult> SearchWithCaps(const ItemIndex& index, std::span<const float> query,
                                            const SearchOptions& options,
                                            const AttributeView& attributes,
                                            std::span<const GroupCap> caps) {
  if (caps.empty() || options.k < 1) {
    return index.Search(query, options);
  }
  return Guard("searching with caps",
               [&] { return Walk(index, query, options, attributes, caps); });
}

std::vector<ScoredItem> PickDiverse(std::span<const ScoredItem> candidates,
                                    const LevelVectors& vectors, int levels, double weight,
                                    int64_t k) {
  const auto copy_vector = [&](int32_t item, std::span<float> out) {
    vectors.CopyRows(levels, item, out);
  };
  return PickDiverse(candidates, copy_vector, vectors.sizes, levels, weight, k);
}

std::vector<ScoredItem> PickDiverse(std::span<const ScoredItem> candidates, CopyVector copy_vector,
                                    const NestedSizes& sizes, int levels, double weight,
                                    int64_t k) {
  const size_t count = candidates.size();
  const size_t wanted = std::min(count, static_cast<size_t>(std::max<int64_t>(k, 0)));
  if (wanted == 0) {
    return {};
  }
  const auto dim = static_cast<size_t>(sizes.end(levels - 1));
  const std::vector<float> units = UnitVectors(candidates, copy_vector, sizes, levels);
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

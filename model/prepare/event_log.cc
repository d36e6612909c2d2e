#include "model/prepare/event_log.h"

#include <algorithm>
#include <cstddef>
#include <tuple>

#include "absl/container/flat_hash_set.h"

namespace nestrec {
namespace {

// Calls visit(begin, end) for every run of events for which `same` holds with the run's first.
template <typename Same, typename Visit>
void ForEachRun(const std::vector<Event>& events, const Same& same, const Visit& visit) {
  for (size_t begin = 0; begin < events.size();) {
    size_t end = begin + 1;
    while (end < events.size() && same(events[begin], events[end])) ++end;
    visit(begin, end);
    begin = end;
  }
}

int64_t Compact(std::vector<Event>& events, const std::vector<bool>& dropped) {
  size_t kept = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    if (!dropped[i]) events[kept++] = events[i];
  }
  const int64_t count = static_cast<int64_t>(events.size() - kept);
  events.resize(kept);
  return count;
}

}  // namespace

int32_t IdTable::Add(absl::string_view id) {
  if (const int32_t found = Find(id); found >= 0) return found;
  const std::string& text = *texts_.emplace(id.data(), id.size()).first;
  const int32_t number = static_cast<int32_t>(ids_.size());
  numbers_.emplace(text, number);
  ids_.push_back(&text);
  return number;
}

int32_t IdTable::Find(absl::string_view id) const {
  const auto found = numbers_.find(id);
  return found == numbers_.end() ? -1 : found->second;
}

void SortByUserAndTime(std::vector<Event>& events) {
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::tie(a.user, a.time) < std::tie(b.user, b.time);
  });
}

int64_t DropDuplicates(std::vector<Event>& events) {
  std::vector<bool> dropped(events.size());
  absl::flat_hash_set<int32_t> items;
  ForEachRun(
      events, [](const Event& a, const Event& b) { return a.user == b.user && a.time == b.time; },
      [&](size_t begin, size_t end) {
        if (end - begin == 1) return;
        items.clear();
        for (size_t i = begin; i < end; ++i) dropped[i] = !items.insert(events[i].item).second;
      });
  return Compact(events, dropped);
}

int64_t DropRepeats(std::vector<Event>& events, Repeats repeats) {
  if (repeats == Repeats::kKeep) return 0;
  std::vector<bool> dropped(events.size());
  absl::flat_hash_set<int32_t> items;
  ForEachRun(
      events, [](const Event& a, const Event& b) { return a.user == b.user; },
      [&](size_t begin, size_t end) {
        items.clear();
        for (size_t n = 0; n < end - begin; ++n) {
          const size_t i = repeats == Repeats::kFirst ? begin + n : end - 1 - n;
          dropped[i] = !items.insert(events[i].item).second;
        }
      });
  return Compact(events, dropped);
}

}  // namespace nestrec

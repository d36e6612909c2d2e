// The events of a log in memory, with users and items as numbers.
//
// Memory: 24 bytes an event, and every distinct id once. Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_set.h"
#include "absl/strings/string_view.h"
#include "model/prepare/event_time.h"

namespace nestrec {

// Gives ids the numbers 0, 1, 2, ... in the order in which they come first.
class IdTable {
 public:
  int32_t Add(absl::string_view id);
  // -1: not there.
  int32_t Find(absl::string_view id) const;
  const std::string& id(int32_t number) const { return *ids_[static_cast<size_t>(number)]; }
  int64_t size() const { return static_cast<int64_t>(ids_.size()); }

 private:
  absl::flat_hash_map<absl::string_view, int32_t> numbers_;
  absl::node_hash_set<std::string> texts_;  // nodes: the views above stay valid
  std::vector<const std::string*> ids_;
};

struct Event {
  int32_t user;
  int32_t item;
  EventTime time;
};

// What to keep of a user's events with one item.
enum class Repeats { kKeep, kFirst, kLast };

// Sorts by user, then time; events of one user at one time stay in the order in which they were.
void SortByUserAndTime(std::vector<Event>& events);

// Of events with the same user, item and time, keeps the first. REQUIRES: sorted as above. Returns
// how many it dropped.
int64_t DropDuplicates(std::vector<Event>& events);

// Applies `repeats`. REQUIRES: sorted as above. Returns how many events it dropped.
int64_t DropRepeats(std::vector<Event>& events, Repeats repeats);

}  // namespace nestrec

#include "model/prepare/core_filter.h"

#include <cstddef>

namespace nestrec {

int64_t KeepCore(std::vector<Event>& events, int64_t users, int64_t items, int64_t k) {
  std::vector<int64_t> user_events(static_cast<size_t>(users));
  std::vector<int64_t> item_events(static_cast<size_t>(items));
  for (const Event& event : events) {
    ++user_events[static_cast<size_t>(event.user)];
    ++item_events[static_cast<size_t>(event.item)];
  }
  int64_t rounds = 0;
  while (true) {
    size_t kept = 0;
    for (const Event& event : events) {
      int64_t& of_user = user_events[static_cast<size_t>(event.user)];
      int64_t& of_item = item_events[static_cast<size_t>(event.item)];
      if (of_user >= k && of_item >= k) {
        events[kept++] = event;
      } else {
        --of_user;
        --of_item;
      }
    }
    if (kept == events.size()) return rounds;
    events.resize(kept);
    ++rounds;
  }
}

}  // namespace nestrec

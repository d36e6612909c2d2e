// The k-core of an event log: the largest part of it in which every user and every item has at
// least k events.
//
// Events are counted, not distinct items: a user who took one item five times has five events. That
// is how the data sets of the SASRec line of work are made. With one event per user and item
// (--repeats first) the two are the same.
//
// Pure function; safe to call from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "model/prepare/event_log.h"

namespace nestrec {

// Removes, again and again, the events of users and items that have fewer than k. The result does
// not depend on the order of removal, and the events that stay keep theirs. Returns how many rounds
// removed something. REQUIRES: users in [0, users), items in [0, items). k <= 1 removes nothing.
int64_t KeepCore(std::vector<Event>& events, int64_t users, int64_t items, int64_t k);

}  // namespace nestrec

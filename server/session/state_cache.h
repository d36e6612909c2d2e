// The states of sessions, kept as long as there is room: the least recently used give way. All of
// it can be computed again from the log.
//
// A state belongs to a user, a session of theirs and a model; any other is as good as none.
//
// Thread safety: all methods may be called from any thread. Locks are held for a look-up, never
// while a model runs: states are handed out as they are, and come back as new ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "base/nested_sizes.h"
#include "model/session_state.h"
#include "server/mutex.h"

namespace nestrec {

class StateCache {
 public:
  struct Key {
    absl::string_view user_id;
    uint64_t session;
    uint64_t model;      // a number that no other model or version has
    uint64_t items = 0;  // Put: the state of the model's items that it was computed from
  };
  struct Found {
    std::shared_ptr<const SessionState> state;  // null: none
    uint64_t erasures = 0;                      // for Put
    uint64_t items = 0;                         // as of its Put
  };
  struct Stats {
    int64_t states = 0;
    int64_t bytes = 0;
    int64_t evicted = 0;
  };

  // 0 keeps nothing.
  explicit StateCache(size_t max_bytes);

  Found Get(const Key& key);

  // Keeps the state, merged level by level with what others have put there meanwhile, if it is of
  // the same items, and unless it is of newer ones; `erasures` as
  // Get gave it: what was erased since then does not come back.
  void Put(const Key& key, SessionState state, uint64_t erasures, const NestedSizes& sizes,
           int planes);

  void Erase(absl::string_view user_id);
  // Of one user's state, with what it takes to keep it; 0 when there is none.
  size_t BytesOf(absl::string_view user_id) const;
  Stats stats() const;

 private:
  struct Entry {
    std::string user_id;
    uint64_t session;
    uint64_t model;
    uint64_t items;
    std::shared_ptr<const SessionState> state;

    size_t bytes() const;
  };
  using Order = std::list<Entry>;  // least recently used first
  struct Shard {
    mutable Mutex mutex;
    Order order ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<absl::string_view, Order::iterator> entries
        ABSL_GUARDED_BY(mutex);  // keys in the entries
    size_t bytes ABSL_GUARDED_BY(mutex) = 0;
    int64_t evicted ABSL_GUARDED_BY(mutex) = 0;
    uint64_t erasures ABSL_GUARDED_BY(mutex) = 0;
  };

  Shard& ShardOf(absl::string_view user_id);
  static void Remove(Shard& shard, Order::iterator entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t max_shard_bytes_;
  std::vector<Shard> shards_;
};

}  // namespace nestrec

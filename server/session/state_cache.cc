#include "server/session/state_cache.h"

#include <utility>

#include "absl/hash/hash.h"

namespace nestrec {
namespace {

// Threads rarely wait for each other, and each shard is large enough for many states.
constexpr size_t kShards = 16;
constexpr size_t kOverheadBytes = 96;  // a list node, a map's slot, the control block

}  // namespace

size_t StateCache::Entry::bytes() const {
  return sizeof(Entry) + kOverheadBytes + user_id.capacity() + state->bytes();
}

StateCache::StateCache(size_t max_bytes)
    : max_shard_bytes_(max_bytes / kShards), shards_(kShards) {}

StateCache::Shard& StateCache::ShardOf(absl::string_view user_id) {
  return shards_[absl::Hash<absl::string_view>()(user_id) % kShards];
}

void StateCache::Remove(Shard& shard, Order::iterator entry) {
  shard.bytes -= entry->bytes();
  shard.entries.erase(entry->user_id);
  shard.order.erase(entry);
}

StateCache::Found StateCache::Get(const Key& key) {
  Shard& shard = ShardOf(key.user_id);
  const MutexLock lock(shard.mutex);
  Found found{.state = nullptr, .erasures = shard.erasures};
  const auto at = shard.entries.find(key.user_id);
  if (at == shard.entries.end()) return found;
  const Order::iterator entry = at->second;
  if (entry->session != key.session || entry->model != key.model) return found;
  shard.order.splice(shard.order.end(), shard.order, entry);
  found.state = entry->state;
  found.items = entry->items;
  return found;
}

void StateCache::Put(const Key& key, SessionState state, uint64_t erasures,
                     const NestedSizes& sizes, int planes) {
  Shard& shard = ShardOf(key.user_id);
  const MutexLock lock(shard.mutex);
  if (erasures != shard.erasures) return;
  const auto at = shard.entries.find(key.user_id);
  if (at != shard.entries.end()) {
    const Order::iterator entry = at->second;
    if (entry->session == key.session && entry->model == key.model) {
      if (entry->items > key.items) return;
      if (entry->items == key.items) state.MergeFrom(*entry->state, sizes, planes);
    }
    Remove(shard, entry);
  }
  const Order::iterator entry = shard.order.insert(
      shard.order.end(), {.user_id = std::string(key.user_id),
                          .session = key.session,
                          .model = key.model,
                          .items = key.items,
                          .state = std::make_shared<const SessionState>(std::move(state))});
  shard.entries.emplace(entry->user_id, entry);
  shard.bytes += entry->bytes();
  while (shard.bytes > max_shard_bytes_) {
    ++shard.evicted;
    Remove(shard, shard.order.begin());
  }
}

void StateCache::Erase(absl::string_view user_id) {
  Shard& shard = ShardOf(user_id);
  const MutexLock lock(shard.mutex);
  ++shard.erasures;
  const auto at = shard.entries.find(user_id);
  if (at != shard.entries.end()) Remove(shard, at->second);
}

size_t StateCache::BytesOf(absl::string_view user_id) const {
  const Shard& shard = const_cast<StateCache*>(this)->ShardOf(user_id);
  const MutexLock lock(shard.mutex);
  const auto at = shard.entries.find(user_id);
  return at == shard.entries.end() ? 0 : at->second->bytes();
}

StateCache::Stats StateCache::stats() const {
  Stats stats;
  for (const Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    stats.states += static_cast<int64_t>(shard.order.size());
    stats.bytes += static_cast<int64_t>(shard.bytes);
    stats.evicted += shard.evicted;
  }
  return stats;
}

}  // namespace nestrec

// The sessions of an embedded log in memory: what every record changes, and nothing else. Bounded
// by bytes: the sessions whose last event is longest ago make room. A session whose last event is
// older than `ttl` has expired.
//
// Time is milliseconds of a clock that never goes back; only differences count.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/session/session_log.h"
#include "server/session/session_record.h"

namespace nestrec {

class SessionTable {
 public:
  struct Options {
    int64_t events_per_session = 200;  // the newest are kept
    size_t max_bytes = size_t{1} << 30;
    int64_t ttl_ms = 0;  // 0: sessions do not expire
  };

  static constexpr size_t kShards = 256;  // parts that can be written one by one

  explicit SessionTable(const Options& options) : options_(options), shards_(kShards) {}

  // What is known of a user's session, if it has not expired.
  struct View {
    uint64_t session;
    int64_t end;
    bool knows_call;
  };
  std::optional<View> Find(absl::string_view user_id, std::optional<CallId> call,
                           int64_t now_ms) const;
  // The session's number, expired or not.
  std::optional<uint64_t> NumberOf(absl::string_view user_id) const;
  SessionTail Read(absl::string_view user_id, int64_t limit, int64_t now_ms) const;

  // What a record says becomes so; `now_ms` is when it was recorded. kAppend and kWhole of another
  // session than the one that is there replace it. A record whose events are there already changes
  // nothing. kDataLoss when events are missing between what is there and the record.
  absl::Status Apply(const SessionRecord& record, int64_t now_ms);

  // Sessions that have to go, least recently recorded first: expired ones, and until the rest fits.
  // They are gone afterwards; the records say so.
  std::vector<SessionRecord> Evict(int64_t now_ms);

  // One shard as kWhole records, whose recorded_ms are the times given to Apply.
  void AppendShard(size_t shard, std::vector<SessionRecord>& records) const;

  // Brings sessions into the order of their times, as after reading a snapshot.
  void SortByTime();

  size_t bytes() const { return bytes_; }
  // What one user's session takes; 0 when there is none.
  size_t BytesOf(absl::string_view user_id) const;
  int64_t sessions() const { return static_cast<int64_t>(order_.size()); }
  int64_t evicted() const { return evicted_; }
  int64_t expired() const { return expired_; }

 private:
  struct Session {
    std::string user_id;
    uint64_t number = 0;
    int64_t end = 0;
    int64_t recorded_ms = 0;
    int64_t kept = 0;           // events in `packed`
    std::string packed;         // events: time in ms, length, id
    std::vector<CallId> calls;  // oldest first

    size_t bytes() const;
  };
  using Order = std::list<Session>;  // least recently recorded first
  using Shard = absl::flat_hash_map<absl::string_view, Order::iterator>;  // keys in the sessions

  Shard& ShardOf(absl::string_view user_id);
  const Shard& ShardOf(absl::string_view user_id) const;
  const Session* FindSession(absl::string_view user_id, int64_t now_ms) const;
  bool IsExpired(const Session& session, int64_t now_ms) const {
    return options_.ttl_ms > 0 && now_ms - session.recorded_ms > options_.ttl_ms;
  }
  void Erase(Order::iterator session);
  void AppendEvents(const std::vector<SessionEvent>& events, Session& session) const;

  const Options options_;
  Order order_;
  std::vector<Shard> shards_;
  size_t bytes_ = 0;
  int64_t evicted_ = 0;
  int64_t expired_ = 0;
};

}  // namespace nestrec

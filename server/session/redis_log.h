// A session log in Redis, for many replicas of a server: any of them may record a user's events and
// answer for the user next. docs/session_log_format.md has the keys.
//
//   NESTREC_ASSIGN_OR_RETURN(RedisAddress address, RedisAddress::Parse("redis://localhost"));
//   RedisSessionLog log({.address = address});
//
// What is acknowledged is as safe as Redis is set up to be (its appendfsync and replicas). Append
// is one script, so that it happens whole or not at all; since every call has an id, it may be
// tried again. Failures and passwords: redis_pool.h.
//
// The address may be that of a node of a Redis Cluster: a user's key lies on one node, and which
// one is learned from the answers of the others.
//
// Redis expires sessions by its own clock, and evicts by its own settings.
//
// Thread safety: all methods may be called from any thread; each call has a connection to itself.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/mutex.h"
#include "server/session/redis_pool.h"
#include "server/session/session_log.h"

namespace nestrec {

class RedisSessionLog : public SessionLog {
 public:
  struct Options {
    RedisPool::Options redis;
    std::string prefix = "nestrec";  // of all keys
    int64_t events_per_session = 200;
    absl::Duration ttl = absl::ZeroDuration();  // since a session's last event; 0: for ever
  };

  // Does not connect yet.
  explicit RedisSessionLog(Options options);
  ~RedisSessionLog() override;

  // Errors of RedisPool.
  absl::StatusOr<SessionAppended> Append(absl::string_view user_id,
                                         std::span<const SessionEvent> events,
                                         absl::string_view event_id) override;
  absl::StatusOr<SessionTail> Read(absl::string_view user_id, int64_t limit) override;
  absl::StatusOr<bool> Forget(absl::string_view user_id) override;
  bool remote() const override { return true; }
  SessionLogStats stats() const override;
  size_t BytesOf(absl::string_view /*user_id*/) const override { return 0; }
  std::string name() const override { return options_.redis.address.ToString(); }

  // Whether Redis answers now.
  absl::Status Ping();

 private:
  // `key` says which node of a cluster is asked.
  absl::StatusOr<RedisValue> Call(const std::string& key,
                                  const std::vector<std::string>& arguments);
  absl::StatusOr<RedisValue> CallWhereItIs(const std::string& key,
                                           const std::vector<std::string>& arguments);
  // A call about the value under the user's key, which it turns into one if an older release wrote
  // it as a stream.
  absl::StatusOr<RedisValue> CallOnString(absl::string_view user_id,
                                          const std::vector<std::string>& arguments);
  std::string KeyOf(absl::string_view user_id, absl::string_view what) const;
  uint64_t RandomNumber();

  std::shared_ptr<RedisPool> MakePool(const RedisAddress& address) const;
  // Of the node that has the slot, as far as is known.
  std::shared_ptr<RedisPool> PoolOf(int slot);
  // Of the node that an answer of kind kMoved or kAsk names; remembers a slot that has moved.
  absl::StatusOr<std::shared_ptr<RedisPool>> SentOn(const RedisValue& answer,
                                                    const RedisPool& from);
  // The next call about the slot asks the first node where it is.
  void AskAgain(int slot);

  const Options options_;
  const std::shared_ptr<RedisPool> first_;  // of the address that was given
  SessionLogCounter counter_;
  Mutex mutex_;
  // The other nodes of a cluster by address, and where slots have been found.
  absl::flat_hash_map<std::string, std::shared_ptr<RedisPool>> nodes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<int, std::shared_ptr<RedisPool>> nodes_of_slots_ ABSL_GUARDED_BY(mutex_);
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec

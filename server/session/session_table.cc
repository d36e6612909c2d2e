#include "server/session/session_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "base/printable.h"

namespace nestrec {
namespace {

// One event in memory: 8 bytes of time, 2 of length, the id.
constexpr size_t kEventHeaderBytes = 10;
// A list node's pointers and the map's slot with its spare room.
constexpr size_t kOverheadBytes = 64;

struct PackedEvent {
  int64_t time_ms;
  absl::string_view item_id;
};

PackedEvent EventAt(const std::string& packed, size_t& at) {
  PackedEvent event;
  std::memcpy(&event.time_ms, packed.data() + at, 8);
  uint16_t length = 0;
  std::memcpy(&length, packed.data() + at + 8, 2);
  event.item_id = absl::string_view(packed).substr(at + kEventHeaderBytes, length);
  at += kEventHeaderBytes + length;
  return event;
}

std::vector<SessionEvent> Unpack(const std::string& packed, int64_t skip) {
  std::vector<SessionEvent> events;
  for (size_t at = 0; at < packed.size();) {
    const PackedEvent event = EventAt(packed, at);
    if (skip-- > 0) continue;
    events.push_back({std::string(event.item_id), absl::FromUnixMillis(event.time_ms)});
  }
  return events;
}

}  // namespace

size_t SessionTable::Session::bytes() const {
  return sizeof(Session) + kOverheadBytes + user_id.capacity() + packed.capacity() +
         calls.capacity() * sizeof(CallId);
}

SessionTable::Shard& SessionTable::ShardOf(absl::string_view user_id) {
  return shards_[absl::Hash<absl::string_view>()(user_id) % kShards];
}
const SessionTable::Shard& SessionTable::ShardOf(absl::string_view user_id) const {
  return shards_[absl::Hash<absl::string_view>()(user_id) % kShards];
}

const SessionTable::Session* SessionTable::FindSession(absl::string_view user_id,
                                                       int64_t now_ms) const {
  const Shard& shard = ShardOf(user_id);
  const auto found = shard.find(user_id);
  if (found == shard.end() || IsExpired(*found->second, now_ms)) return nullptr;
  return &*found->second;
}

std::optional<SessionTable::View> SessionTable::Find(absl::string_view user_id,
                                                     std::optional<CallId> call,
                                                     int64_t now_ms) const {
  const Session* session = FindSession(user_id, now_ms);
  if (session == nullptr) return std::nullopt;
  const bool knows = call.has_value() && std::find(session->calls.begin(), session->calls.end(),
                                                   *call) != session->calls.end();
  return View{.session = session->number, .end = session->end, .knows_call = knows};
}

std::optional<uint64_t> SessionTable::NumberOf(absl::string_view user_id) const {
  const Shard& shard = ShardOf(user_id);
  const auto found = shard.find(user_id);
  if (found == shard.end()) return std::nullopt;
  return found->second->number;
}

SessionTail SessionTable::Read(absl::string_view user_id, int64_t limit, int64_t now_ms) const {
  const Session* session = FindSession(user_id, now_ms);
  if (session == nullptr) return {};
  return {.session = session->number,
          .end = session->end,
          .events = Unpack(session->packed, session->kept - limit)};
}

void SessionTable::AppendEvents(const std::vector<SessionEvent>& events, Session& session) const {
  for (const SessionEvent& event : events) {
    const int64_t time_ms = absl::ToUnixMillis(event.time);
    const auto length = static_cast<uint16_t>(event.item_id.size());
    session.packed.append(reinterpret_cast<const char*>(&time_ms), 8);
    session.packed.append(reinterpret_cast<const char*>(&length), 2);
    session.packed.append(event.item_id, 0, length);
  }
  session.kept += static_cast<int64_t>(events.size());
  session.end += static_cast<int64_t>(events.size());
  if (session.kept <= options_.events_per_session) return;
  size_t at = 0;
  for (; session.kept > options_.events_per_session; --session.kept) EventAt(session.packed, at);
  session.packed.erase(0, at);
}

absl::Status SessionTable::Apply(const SessionRecord& record, int64_t now_ms) {
  Shard& shard = ShardOf(record.user_id);
  const auto found = shard.find(record.user_id);
  if (record.type == SessionRecord::Type::kForget) {
    if (found != shard.end() && found->second->number == record.session) Erase(found->second);
    return absl::OkStatus();
  }
  if (record.type == SessionRecord::Type::kEnd) return absl::OkStatus();
  if (found != shard.end() && found->second->number != record.session) {
    Erase(found->second);
    return Apply(record, now_ms);
  }
  const int64_t after = record.first + static_cast<int64_t>(record.events.size());
  Order::iterator session;
  if (found == shard.end()) {
    session = order_.emplace(order_.end());
    session->user_id = record.user_id;
    session->number = record.session;
    session->end = record.first;
    shard.emplace(session->user_id, session);
  } else {
    session = found->second;
    if (after <= session->end) return absl::OkStatus();
    if (record.first != session->end) {
      return absl::DataLossError(absl::StrCat(
          "the session of user '", Printable(record.user_id), "' has had ", session->end,
          " events, but the record is about events ", record.first, " to ", after - 1));
    }
    bytes_ -= session->bytes();
    order_.splice(order_.end(), order_, session);
  }
  AppendEvents(record.events, *session);
  session->calls.insert(session->calls.end(), record.calls.begin(), record.calls.end());
  if (session->calls.size() > SessionLog::kRememberedCalls) {
    session->calls.erase(session->calls.begin(),
                         session->calls.end() - SessionLog::kRememberedCalls);
  }
  session->recorded_ms = now_ms;
  bytes_ += session->bytes();
  return absl::OkStatus();
}

void SessionTable::Erase(Order::iterator session) {
  bytes_ -= session->bytes();
  ShardOf(session->user_id).erase(session->user_id);
  order_.erase(session);
}

std::vector<SessionRecord> SessionTable::Evict(int64_t now_ms) {
  std::vector<SessionRecord> gone;
  while (!order_.empty()) {
    const bool expired = IsExpired(order_.front(), now_ms);
    if (!expired && bytes_ <= options_.max_bytes) break;
    ++(expired ? expired_ : evicted_);
    gone.push_back({.type = SessionRecord::Type::kForget,
                    .user_id = order_.front().user_id,
                    .session = order_.front().number,
                    .calls = {},
                    .events = {}});
    Erase(order_.begin());
  }
  return gone;
}

void SessionTable::AppendShard(size_t shard, std::vector<SessionRecord>& records) const {
  for (const auto& [user_id, session] : shards_[shard]) {
    records.push_back({.type = SessionRecord::Type::kWhole,
                       .user_id = session->user_id,
                       .session = session->number,
                       .first = session->end - session->kept,
                       .recorded_ms = session->recorded_ms,
                       .calls = session->calls,
                       .events = Unpack(session->packed, 0)});
  }
}

void SessionTable::SortByTime() {
  order_.sort([](const Session& a, const Session& b) { return a.recorded_ms < b.recorded_ms; });
}

size_t SessionTable::BytesOf(absl::string_view user_id) const {
  const Shard& shard = ShardOf(user_id);
  const auto found = shard.find(user_id);
  return found == shard.end() ? 0 : found->second->bytes();
}

}  // namespace nestrec

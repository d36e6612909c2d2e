#include "server/session/redis_record.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kCallBytes = 16;
constexpr size_t kLengthBytes = 2;  // of an event, in front of it
constexpr size_t kTimeBytes = 8;

void PutFixed(uint64_t value, size_t count, std::string& out) {
  for (size_t i = 0; i < count; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t GetFixed(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

absl::Status Broken(absl::string_view why) {
  return absl::DataLossError(absl::StrCat("what Redis holds is no session log: ", why));
}

}  // namespace

// The header is version, session, events ever, calls, events here: B c8 I8 B I2.
const char kAppendToRedisRecord[] = R"lua(
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then return value end
local session, total, known, kept, from, at = ARGV[1], 0, 0, 0, 21, 21
if value then
  if #value < 20 or string.byte(value) ~= 1 then
    return redis.error_reply('ERR no session log that this release of nestrec can extend')
  end
  session, total, known, kept = struct.unpack('<c8I8BI2', value, 2)
  at = 21 + 16 * known
  local found = string.find(value, ARGV[4], from, true)
  while found and found < at do
    if found % 16 == 5 then return {session, string.format('%.0f', total), 1} end
    found = string.find(value, ARGV[4], found + 1, true)
  end
end
if known == tonumber(ARGV[5]) then
  from, known = from + 16, known - 1
end
local calls = value and string.sub(value, from, at - 1) or ''
total, kept = total + tonumber(ARGV[6]), kept + tonumber(ARGV[7])
while kept > tonumber(ARGV[2]) do
  at, kept = at + 2 + struct.unpack('<I2', value, at), kept - 1
end
value = struct.pack('<Bc8I8BI2', 1, session, total, known + 1, kept) .. calls .. ARGV[4]
  .. (value and string.sub(value, at) or '') .. ARGV[8]
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], value)
end
return {session, string.format('%.0f', total), 0}
)lua";

// A stream's entries have the id <session>-<event> and the fields item and time.
const char kStreamToRedisRecord[] = R"lua(
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'string' or kind == 'none' then return 0 end
if kind ~= 'stream' then return redis.error_reply('ERR no stream') end
local entries = redis.call('XRANGE', KEYS[1], '-', '+')
local events, total, kept = {}, 0, #entries
for i, entry in ipairs(entries) do
  local number, fields = string.match(entry[1], '^%d+%-(%d+)$'), entry[2]
  if #fields ~= 4 or fields[1] ~= 'item' or fields[3] ~= 'time' or not tonumber(fields[4]) then
    return redis.error_reply('ERR no session log that nestrec has written')
  end
  total = tonumber(number) + 1
  events[i] = struct.pack('<I2i8', 8 + #fields[2], tonumber(fields[4])) .. fields[2]
end
local calls, known = {}, redis.call('ZRANGE', KEYS[2], 0, -1)
for i, call in ipairs(known) do
  calls[i] = string.gsub(call, '%x%x', function(hex) return string.char(tonumber(hex, 16)) end)
end
local left = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[1], struct.pack('<Bc8I8BI2', 1, ARGV[1], total, #known, kept)
  .. table.concat(calls) .. table.concat(events))
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return 1
)lua";

std::string PackSessionNumber(uint64_t session) {
  std::string bytes;
  PutFixed(session, sizeof(session), bytes);
  return bytes;
}

std::string PackCallId(const CallId& call) {
  std::string bytes;
  for (const uint64_t half : call) {
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(half >> shift));
  }
  return bytes;
}

std::string PackSessionEvents(std::span<const SessionEvent> events) {
  std::string bytes;
  for (const SessionEvent& event : events) {
    PutFixed(kTimeBytes + event.item_id.size(), kLengthBytes, bytes);
    PutFixed(static_cast<uint64_t>(absl::ToUnixMillis(event.time)), kTimeBytes, bytes);
    bytes += event.item_id;
  }
  return bytes;
}

absl::StatusOr<uint64_t> ParseSessionNumber(absl::string_view bytes) {
  if (bytes.size() != 8 || GetFixed(bytes) == 0) return Broken("it has no session's number");
  return GetFixed(bytes);
}

absl::StatusOr<SessionTail> ParseRedisRecord(absl::string_view value, int64_t limit) {
  if (value.size() < kRedisRecordHeaderBytes) return Broken("it is too short");
  const auto version = static_cast<uint8_t>(value[0]);
  if (version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat("a session log in Redis has format version ",
                                                      version, ", but this release knows ",
                                                      kVersion, "; upgrade, or forget the user"));
  }
  SessionTail tail;
  tail.session = GetFixed(value.substr(1, 8));
  tail.end = static_cast<int64_t>(GetFixed(value.substr(9, 8)));
  const uint64_t calls = GetFixed(value.substr(17, 1));
  const auto kept = static_cast<int64_t>(GetFixed(value.substr(18, 2)));
  value.remove_prefix(kRedisRecordHeaderBytes);
  if (tail.session == 0 || tail.end < kept || value.size() < calls * kCallBytes) {
    return Broken("its header does not fit it");
  }
  value.remove_prefix(calls * kCallBytes);
  const int64_t first = kept - std::min(kept, std::max<int64_t>(limit, 0));
  for (int64_t i = 0; i < kept; ++i) {
    if (value.size() < kLengthBytes) return Broken("events are missing");
    const uint64_t length = GetFixed(value.substr(0, kLengthBytes));
    value.remove_prefix(kLengthBytes);
    if (length < kTimeBytes || length > value.size()) return Broken("an event does not fit it");
    if (i >= first) {
      const auto time_ms = static_cast<int64_t>(GetFixed(value.substr(0, kTimeBytes)));
      tail.events.push_back({.item_id = std::string(value.substr(kTimeBytes, length - kTimeBytes)),
                             .time = absl::FromUnixMillis(time_ms)});
    }
    value.remove_prefix(length);
  }
  if (!value.empty()) return Broken("bytes follow its events");
  return tail;
}

}  // namespace nestrec

#include "server/session/session_record.h"

#include <limits>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

constexpr uint32_t kFormatVersion = 1;
constexpr size_t kFrameBytes = 12;  // length, checksum
// More than EmbeddedSessionLog's limits let a record have, and little enough that looking for whole
// records behind a damaged one takes a second at most.
constexpr uint32_t kMaxRecordBytes = 1u << 20;
constexpr size_t kMagicBytes = 8;

absl::string_view MagicOf(SessionFileKind kind) {
  return kind == SessionFileKind::kEvents ? "nrevents" : "nrsnapsh";
}

void PutFixed32(uint32_t value, std::string& out) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}
void PutFixed64(uint64_t value, std::string& out) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}
uint64_t GetFixed(const char* bytes, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return value;
}

// Seven bits a byte, the lowest first.
void PutVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void PutText(absl::string_view text, std::string& out) {
  PutVarint(text.size(), out);
  out.append(text.data(), text.size());
}

// Reads what is above; after the first thing that does not fit, ok() is false and all is 0.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : bytes_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

  uint64_t Fixed64() {
    const absl::string_view bytes = Take(8);
    return ok_ ? GetFixed(bytes.data(), 8) : 0;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const absl::string_view byte = Take(1);
      if (!ok_) return 0;
      const auto bits = static_cast<unsigned char>(byte[0]);
      value |= static_cast<uint64_t>(bits & 0x7f) << shift;
      if (bits < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  int64_t Number() {  // that is never negative
    const uint64_t value = Varint();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) ok_ = false;
    return ok_ ? static_cast<int64_t>(value) : 0;
  }
  std::string Text() { return std::string(Take(Varint())); }
  // A count of things that take at least `bytes_each`.
  size_t Count(size_t bytes_each) {
    const uint64_t count = Varint();
    if (count > bytes_.size() / bytes_each) ok_ = false;
    return ok_ ? static_cast<size_t>(count) : 0;
  }

 private:
  absl::string_view Take(uint64_t count) {
    if (!ok_ || count > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const absl::string_view taken = bytes_.substr(0, static_cast<size_t>(count));
    bytes_.remove_prefix(static_cast<size_t>(count));
    return taken;
  }

  absl::string_view bytes_;
  bool ok_ = true;
};

std::string Payload(const SessionRecord& record) {
  std::string out;
  out.push_back(static_cast<char>(record.type));
  if (record.type == SessionRecord::Type::kEnd) {
    PutVarint(static_cast<uint64_t>(record.count), out);
    return out;
  }
  PutText(record.user_id, out);
  PutFixed64(record.session, out);
  if (record.type == SessionRecord::Type::kForget) return out;
  PutVarint(static_cast<uint64_t>(record.first), out);
  PutFixed64(static_cast<uint64_t>(record.recorded_ms), out);
  PutVarint(record.calls.size(), out);
  for (const CallId& call : record.calls) {
    PutFixed64(call[0], out);
    PutFixed64(call[1], out);
  }
  PutVarint(record.events.size(), out);
  for (const SessionEvent& event : record.events) {
    PutFixed64(static_cast<uint64_t>(absl::ToUnixMillis(event.time)), out);
    PutText(event.item_id, out);
  }
  return out;
}

std::optional<SessionRecord> ParsePayload(absl::string_view payload) {
  SessionRecord record;
  if (payload.empty()) return std::nullopt;
  record.type = static_cast<SessionRecord::Type>(payload[0]);
  Reader reader(payload.substr(1));
  switch (record.type) {
    case SessionRecord::Type::kEnd:
      record.count = reader.Number();
      break;
    case SessionRecord::Type::kForget:
      record.user_id = reader.Text();
      record.session = reader.Fixed64();
      break;
    case SessionRecord::Type::kAppend:
    case SessionRecord::Type::kWhole:
      record.user_id = reader.Text();
      record.session = reader.Fixed64();
      record.first = reader.Number();
      record.recorded_ms = static_cast<int64_t>(reader.Fixed64());
      record.calls.resize(reader.Count(16));
      for (CallId& call : record.calls) call = {reader.Fixed64(), reader.Fixed64()};
      record.events.resize(reader.Count(9));
      for (SessionEvent& event : record.events) {
        event.time = absl::FromUnixMillis(static_cast<int64_t>(reader.Fixed64()));
        event.item_id = reader.Text();
      }
      break;
    default:
      return std::nullopt;
  }
  if (!reader.ok() || !reader.at_end()) return std::nullopt;
  return record;
}

uint64_t ChecksumOf(absl::string_view payload, uint64_t file, uint64_t offset) {
  const uint64_t seed = file * 0x9e3779b97f4a7c15u ^ offset;
  return XXH3_64bits_withSeed(payload.data(), payload.size(), seed);
}

}  // namespace

CallId HashCallId(absl::string_view event_id) {
  const XXH128_hash_t hash = XXH3_128bits(event_id.data(), event_id.size());
  return {hash.high64, hash.low64};
}

void AppendFrame(const SessionRecord& record, uint64_t file, uint64_t offset, std::string& out) {
  const std::string payload = Payload(record);
  PutFixed32(static_cast<uint32_t>(payload.size()), out);
  PutFixed64(ChecksumOf(payload, file, offset), out);
  out += payload;
}

std::optional<SessionFrame> ReadFrame(absl::string_view bytes, uint64_t file, uint64_t offset) {
  if (bytes.size() < kFrameBytes) return std::nullopt;
  const uint64_t length = GetFixed(bytes.data(), 4);
  if (length == 0 || length > kMaxRecordBytes || length > bytes.size() - kFrameBytes) {
    return std::nullopt;
  }
  const absl::string_view payload = bytes.substr(kFrameBytes, static_cast<size_t>(length));
  if (GetFixed(bytes.data() + 4, 8) != ChecksumOf(payload, file, offset)) return std::nullopt;
  std::optional<SessionRecord> record = ParsePayload(payload);
  if (!record.has_value()) return std::nullopt;
  return SessionFrame{.record = *std::move(record),
                      .size_bytes = kFrameBytes + static_cast<size_t>(length)};
}

std::string SessionFileHeader(SessionFileKind kind, uint64_t number) {
  std::string header(MagicOf(kind));
  PutFixed32(kFormatVersion, header);
  PutFixed32(0, header);
  PutFixed64(number, header);
  PutFixed64(XXH3_64bits(header.data(), header.size()), header);
  return header;
}

absl::Status CheckSessionFileHeader(absl::string_view bytes, SessionFileKind kind,
                                    uint64_t number) {
  if (bytes.size() < kSessionFileHeaderBytes || bytes.substr(0, kMagicBytes) != MagicOf(kind) ||
      GetFixed(bytes.data() + 24, 8) != XXH3_64bits(bytes.data(), 24)) {
    return absl::DataLossError("its first 32 bytes are not the header of a session log");
  }
  const uint64_t version = GetFixed(bytes.data() + 8, 4);
  if (version != kFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "its format version is ", version, "; this program reads version ", kFormatVersion));
  }
  const uint64_t found = GetFixed(bytes.data() + 16, 8);
  if (found != number) {
    return absl::DataLossError(
        absl::StrCat("its header says number ", found, " and its name ", number));
  }
  return absl::OkStatus();
}

}  // namespace nestrec

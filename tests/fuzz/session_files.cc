#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <string>

#include "server/session/event_file.h"
#include "server/session/session_record.h"
#include "server/session/session_table.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

// `payload` as a record of file 0 at offset 0 (docs/session_log_format.md), so that what is read
// behind the checksum is reached too.
std::string Framed(absl::string_view payload) {
  std::string frame;
  const auto put = [&](uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) frame.push_back(static_cast<char>(value >> (8 * i)));
  };
  put(payload.size(), 4);
  put(XXH3_64bits_withSeed(payload.data(), payload.size(), 0), 8);
  frame.append(payload.data(), payload.size());
  return frame;
}

}  // namespace

void FuzzSessionFiles(absl::string_view bytes) {
  SessionTable table({.events_per_session = 5, .max_bytes = 10'000});
  const auto apply = [&](const SessionRecord& record) { return table.Apply(record, 1000); };
  {
    const MemoryFile file(bytes);
    ReadEventFile(file.path(), 1, /*is_last=*/true, apply).status().IgnoreError();
    ReadEventFile(file.path(), 1, /*is_last=*/false, apply).status().IgnoreError();
    ReadSessionSnapshot(file.path(), 1, apply).IgnoreError();
  }
  const auto frame = ReadFrame(Framed(bytes), 0, 0);
  if (!frame.has_value()) return;
  // What was read is what would be written.
  std::string again;
  AppendFrame(frame->record, 0, 0, again);
  const auto reread = ReadFrame(again, 0, 0);
  if (!reread.has_value() || !(reread->record == frame->record)) std::abort();
  apply(frame->record).IgnoreError();
  table.Read(frame->record.user_id, 5, 1000);
  table.Evict(1000);
  table.SortByTime();
}

}  // namespace nestrec

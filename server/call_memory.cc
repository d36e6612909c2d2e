#include "server/call_memory.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace nestrec {

absl::StatusOr<int64_t> CallMemoryOf(absl::string_view text, int64_t max_message_bytes,
                                     const std::vector<MemoryLimit>& limits) {
  const int64_t least = std::max(kLeastCallMemory, 2 * max_message_bytes);
  int64_t bytes = kAmpleCallMemory;
  if (text == "auto") {
    for (const MemoryLimit& limit : limits) {
      // Limits of what is mapped are no measure of what there is.
      if (limit.counts_mappings) continue;
      bytes = std::min(
          bytes, static_cast<int64_t>(std::min<uint64_t>(limit.limit_bytes / 8, kAmpleCallMemory)));
    }
    return std::max(bytes, least);
  }
  if (!absl::SimpleAtoi(text, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-call-memory: '", text, "' is not auto or a number of bytes such as 134217728"));
  }
  if (bytes < least) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-call-memory: ", bytes, " bytes are less than ", least, ", which is ",
        least == kLeastCallMemory ? "the least" : "two of --max-message-bytes", "; give it more"));
  }
  return bytes;
}

}  // namespace nestrec

#include "server/request_id.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/sampling.h"

namespace nestrec {
namespace {

bool IsLowerHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
  });
}

bool IsZero(absl::string_view text) {
  return text.find_first_not_of('0') == absl::string_view::npos;
}

// Of this process.
uint64_t RandomNumber() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

}  // namespace

bool IsSaneRequestId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  absl::string_view("-_.:/+=@").find(c) != absl::string_view::npos;
         });
}

std::string NewRequestId() {
  static const uint64_t process = RandomNumber();
  static std::atomic<uint64_t> count{
      RandomNumber()};  // any order will do: only being unique counts
  return absl::StrCat(
      absl::Hex(process, absl::kZeroPad16),
      absl::Hex(MixBits(count.fetch_add(1, std::memory_order_relaxed)), absl::kZeroPad16));
}

std::string TraceIdOf(absl::string_view traceparent) {
  constexpr size_t kBytes = 55;  // version 00's; later ones may go on behind a "-"
  if (traceparent.size() < kBytes || traceparent.size() > kMaxRequestIdBytes) return "";
  const absl::string_view version = traceparent.substr(0, 2);
  const absl::string_view trace = traceparent.substr(3, 32);
  const absl::string_view parent = traceparent.substr(36, 16);
  const absl::string_view flags = traceparent.substr(53, 2);
  const bool dashes = traceparent[2] == '-' && traceparent[35] == '-' && traceparent[52] == '-';
  const bool ends = traceparent.size() == kBytes || (version != "00" && traceparent[kBytes] == '-');
  const bool good = dashes && ends && IsLowerHex(version) && version != "ff" && IsLowerHex(trace) &&
                    !IsZero(trace) && IsLowerHex(parent) && !IsZero(parent) && IsLowerHex(flags);
  return good ? std::string(trace) : "";
}

}  // namespace nestrec

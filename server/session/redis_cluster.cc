#include "server/session/redis_cluster.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/printable.h"

namespace nestrec {

int RedisSlot(absl::string_view key) {
  const size_t open = key.find('{');
  if (open != absl::string_view::npos) {
    const size_t close = key.find('}', open + 1);
    if (close != absl::string_view::npos && close != open + 1) {
      key = key.substr(open + 1, close - open - 1);
    }
  }
  uint32_t crc = 0;
  for (const char c : key) {
    crc ^= static_cast<uint32_t>(static_cast<unsigned char>(c)) << 8;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 0x8000) != 0 ? (crc << 1 ^ 0x1021) : crc << 1;
    }
    crc &= 0xffff;
  }
  return static_cast<int>(crc % 16384);
}

absl::StatusOr<RedisAddress> RedisNodeAddress(absl::string_view node, const RedisAddress& from) {
  RedisAddress address{.user = from.user};
  const size_t colon = node.rfind(':');
  const absl::string_view host = node.substr(0, colon);
  if (colon == absl::string_view::npos || host == "?" ||
      !absl::SimpleAtoi(node.substr(colon + 1), &address.port) || address.port < 1 ||
      address.port > 65535 || (host.empty() && from.host.empty())) {
    return absl::UnavailableError(
        absl::StrCat("Redis at ", from.ToString(), " sends us to '", Printable(node),
                     "', which is no address; set cluster-announce-ip of its nodes"));
  }
  address.host = host.empty() ? from.host : std::string(host);
  return address;
}

}  // namespace nestrec

#include "index/index_file.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

void Open(absl::string_view bytes) {
  const MemoryFile file(bytes);
  const auto index = OpenIndexFile(file.path(), "key");
  if (!index.ok()) return;
  // All of it can be read.
  [[maybe_unused]] volatile int sum = std::accumulate(
      index->payload.begin(), index->payload.end(), 0,
      [](int so_far, std::byte byte) { return (so_far + static_cast<int>(byte)) & 0xffff; });
}

// The same bytes with a footer whose checksums and sizes are right.
std::string Sealed(absl::string_view bytes) {
  constexpr size_t kFixedBytes = 16;  // magic, version, bytes of the key
  uint32_t key_bytes = 0;
  if (bytes.size() >= kFixedBytes) std::memcpy(&key_bytes, bytes.data() + 12, sizeof(key_bytes));
  const uint64_t header_bytes =
      std::min<uint64_t>((kFixedBytes + uint64_t{key_bytes} + 63) / 64 * 64, bytes.size());
  const absl::string_view payload = bytes.substr(header_bytes);
  uint64_t footer[4] = {payload.size(), XXH3_64bits(payload.data(), payload.size()),
                        XXH3_64bits(bytes.data(), header_bytes), 0};
  footer[3] = XXH3_64bits(footer, 3 * sizeof(uint64_t));
  std::string sealed(bytes);
  sealed.append(reinterpret_cast<const char*>(footer), sizeof(footer));
  return sealed;
}

}  // namespace

void FuzzIndexFile(absl::string_view bytes) {
  Open(bytes);
  Open(Sealed(bytes));
}

}  // namespace nestrec

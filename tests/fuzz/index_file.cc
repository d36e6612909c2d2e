#include "index/index_file.h"

#include <numeric>

#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace nestrec {

void FuzzIndexFile(absl::string_view bytes) {
  const MemoryFile file(bytes);
  const auto index = OpenIndexFile(file.path(), "key");
  if (!index.ok()) return;
  // All of it can be read.
  [[maybe_unused]] volatile int sum = std::accumulate(
      index->payload.begin(), index->payload.end(), 0,
      [](int so_far, std::byte byte) { return (so_far + static_cast<int>(byte)) & 0xffff; });
}

}  // namespace nestrec

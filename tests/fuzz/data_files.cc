#include <string>
#include <variant>
#include <vector>

#include "base/npy.h"
#include "model/item_record.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace nestrec {

void FuzzDataFiles(absl::string_view bytes) {
  {
    const MemoryFile file(bytes);
    ReadNpy(file.path()).status().IgnoreError();
  }
  const std::vector<std::string> names = {"title", "price", "tags", ""};
  RecordFields(bytes, names);
  size_t values = 0;
  VisitRecord(bytes, [&](absl::string_view /*field*/, const RecordValue& /*value*/) { ++values; });
}

}  // namespace nestrec

// An index that is kept in a file between runs (index/index_file.h).
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "index/item_index.h"

namespace nestrec {

struct KeptIndex {
  std::unique_ptr<const ItemIndex> index;
  // Ok: read from the file. Else why it was not: kNotFound where there was none,
  // kFailedPrecondition where it was of other vectors, another kind or release, kDataLoss where it
  // was damaged.
  absl::Status load;
  // Where it was built: whether it could be written. The index serves in any case.
  absl::Status save;
};

}  // namespace nestrec

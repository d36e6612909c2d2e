// The inverted lists of a FAISS index as they lie in a mapped file: nothing is copied, and
// processes that map the same file share its pages. FAISS's own OnDiskInvertedLists do that too,
// but start threads for every search.
//
//   uint64 lists (0: the index has none, or of a kind that stays with FAISS), bytes of a code
//   uint64 entries of each list
//   each list: its ids, int64; its codes; both at a multiple of 64 bytes
//
// Offsets count from the section's first byte, which is at a multiple of 64 bytes of the mapping.
// Only .cc files of index/ include it.
//
// Thread safety: functions are pure; lists may be read by any number of threads.
#pragma once

#include <faiss/IndexIVF.h>
#include <faiss/invlists/InvertedLists.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace nestrec {

// The inverted file in `index`, where its lists are of the plain kind or mapped; else null.
faiss::IndexIVF* WithPlainLists(faiss::Index& index);

// Bytes of the section for these lists; null: of one that says that there are none.
uint64_t ListSectionBytes(const faiss::InvertedLists* lists);

// Gives the section to `write`, in parts. Errors of `write`.
absl::Status WriteListSection(const faiss::InvertedLists* lists,
                              const std::function<absl::Status(const void*, size_t)>& write);

// The lists of a section, which keep `mapping` alive; null where it says that there are none.
// kDataLoss: it does not hold what it says, or an id is not below `items`.
absl::StatusOr<std::unique_ptr<faiss::InvertedLists>> MapListSection(
    std::span<const std::byte> section, int64_t items, std::shared_ptr<const MappedFile> mapping);

// False once the mapped file of an index's lists has lost bytes (base/mapping_guard.h).
bool ListsIntact(faiss::Index& index);

// Takes the lists out of an index for the length of a scope; empty ones of the same kind stand in.
class ListsTakenOut {
 public:
  explicit ListsTakenOut(faiss::IndexIVF& index);
  ~ListsTakenOut();
  ListsTakenOut(const ListsTakenOut&) = delete;
  ListsTakenOut& operator=(const ListsTakenOut&) = delete;

 private:
  faiss::IndexIVF& index_;
  faiss::InvertedLists* const lists_;
  faiss::ArrayInvertedLists empty_;
};

}  // namespace nestrec

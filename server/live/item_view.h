// All items of a model as they are at one moment: those of its checkpoint, with what was upserted
// and removed since. A request takes one when it arrives and keeps it: names, records, filters and
// vectors that belong together.
//
// Numbers: items of the checkpoint are 1..N, as there; others follow. An item keeps its number as
// long as a view that has it is alive, so numbers of one view may be used with a later one of the
// same snapshot, in which the item may be gone.
//
// Two questions differ: whether an item is known (a history may name it) and whether it is listed
// (it may come back). A removed item of the checkpoint stays known: what users did with it still
// says something. Of a removed item that the checkpoint does not have nothing is left.
//
// Ownership: looks at the checkpoint's catalogue, which whoever holds the snapshot keeps alive.
// Thread safety: immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "index/attribute_view.h"
#include "index/overlaid_index.h"
#include "model/catalogue.h"
#include "model/item_rows.h"

namespace nestrec {

// One item that is not, or not any more, as the checkpoint has it.
struct LiveEntry {
  std::string id;
  std::optional<std::string> record;  // a JSON object; none: the checkpoint's
  ItemAttributes attributes;          // of the record
  std::vector<float> vector;          // [D]; empty: the checkpoint's
  uint64_t vector_changed = 0;        // the generation in which the vector came
  bool removed = false;

  int64_t bytes() const;
};

struct LiveCounts {
  int64_t added = 0;    // items that the checkpoint does not have
  int64_t changed = 0;  // items of it with another record or vector
  int64_t removed = 0;  // items of it that may not come back
  int64_t skipped = 0;  // upserted items that this model cannot use
  int64_t bytes = 0;    // of memory
};

class ItemView final : public ItemRows {
 public:
  using Numbered = std::pair<int32_t, std::shared_ptr<const LiveEntry>>;
  struct Changes {
    std::vector<Numbered> entries;  // ascending
    int64_t items = 0;              // the highest number that there ever was
    uint64_t generation = 0;        // of the last change
    uint64_t forgotten = 0;         // of the last one that took a vector away
    int64_t skipped = 0;
  };

  // The checkpoint's alone.
  explicit ItemView(const Catalogue& catalogue)
      : ItemView(catalogue, {.items = catalogue.size()}) {}
  ItemView(const Catalogue& catalogue, Changes changes);
  ItemView(const ItemView&) = delete;
  ItemView& operator=(const ItemView&) = delete;

  // The highest number.
  int64_t items() const { return changes_.items; }
  // How many may come back.
  int64_t listed() const;
  const LiveCounts& counts() const { return counts_; }

  // The number of a known item.
  std::optional<int32_t> Find(absl::string_view id) const;
  bool IsListed(int32_t item) const;
  // REQUIRES: a known item.
  absl::string_view id(int32_t item) const;
  absl::string_view record(int32_t item) const;

  const float* RowOf(int32_t item) const override;
  uint64_t generation() const { return changes_.generation; }
  // The last generation in which a vector of these items changed, as far as that is known: a state
  // that was computed later has absorbed them as they are.
  uint64_t NewestChange(std::span<const int32_t> items) const;

  // For searches, filters and caps; null where nothing changed.
  const ItemOverlay* overlay() const { return overlay_.has_value() ? &*overlay_ : nullptr; }
  const AttributeOverlay* attributes() const {
    return overlay_.has_value() ? &attributes_ : nullptr;
  }
  const Changes& changes() const { return changes_; }

 private:
  const LiveEntry* EntryOf(int32_t item) const;

  const Catalogue* catalogue_;
  Changes changes_;
  LiveCounts counts_;
  absl::flat_hash_map<absl::string_view, int32_t> new_ids_;
  std::optional<ItemOverlay> overlay_;
  AttributeOverlay attributes_;
};

}  // namespace nestrec

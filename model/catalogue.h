// The items that a model or a data set knows: external ids and metadata, by item number.
//
// Item numbers are 1-based, as in interactions.txt; 0 is the padding item, which has neither id nor
// record. A record is the item's line of items.jsonl, a JSON object kept as text and parsed only
// when somebody asks for a field.
//
// Thread safety: immutable once created.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

class Catalogue {
 public:
  // Item n has id ids[id_offsets[n-1] .. id_offsets[n]) and record records[record_offsets[n-1] ..
  // record_offsets[n]): N + 1 offsets each, in bytes. `owner` keeps the texts alive. kDataLoss when
  // offsets decrease or leave the text; kInvalidArgument, naming both items, when two share an id
  // or one is empty.
  static absl::StatusOr<Catalogue> Create(absl::string_view ids,
                                          std::span<const int64_t> id_offsets,
                                          absl::string_view records,
                                          std::span<const int64_t> record_offsets,
                                          std::shared_ptr<const void> owner);
  // The same from a list of (id, record): copies them.
  static absl::StatusOr<Catalogue> Create(const std::vector<std::string>& ids,
                                          const std::vector<std::string>& records);

  int64_t size() const { return static_cast<int64_t>(id_offsets_.size()) - 1; }
  // REQUIRES: 1 <= item <= size().
  absl::string_view id(int64_t item) const { return Slice(ids_, id_offsets_, item); }
  absl::string_view record(int64_t item) const { return Slice(records_, record_offsets_, item); }
  // The item number of an external id.
  std::optional<int32_t> Find(absl::string_view id) const;
  // A field of the item's record as text: strings as they are, numbers as written, lists joined by
  // ", "; empty when the item has no such field or it is null.
  std::string Field(int64_t item, absl::string_view name) const;

  // The parts as they are stored in a checkpoint.
  absl::string_view ids_text() const { return ids_; }
  std::span<const int64_t> id_offsets() const { return id_offsets_; }
  absl::string_view records_text() const { return records_; }
  std::span<const int64_t> record_offsets() const { return record_offsets_; }

 private:
  Catalogue() = default;
  static absl::string_view Slice(absl::string_view text, std::span<const int64_t> offsets,
                                 int64_t item) {
    return text.substr(static_cast<size_t>(offsets[item - 1]),
                       static_cast<size_t>(offsets[item] - offsets[item - 1]));
  }

  absl::string_view ids_;
  std::span<const int64_t> id_offsets_;
  absl::string_view records_;
  std::span<const int64_t> record_offsets_;
  absl::flat_hash_map<absl::string_view, int32_t> numbers_;
  std::shared_ptr<const void> owner_;
};

}  // namespace nestrec

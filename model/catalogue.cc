#include "model/catalogue.h"

#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/item_record.h"

namespace nestrec {
namespace {

absl::Status CheckOffsets(absl::string_view what, absl::string_view text,
                          std::span<const int64_t> offsets) {
  if (offsets.empty()) {
    return absl::DataLossError(
        absl::StrCat("the catalogue has no ", what, " offsets: N items need N + 1"));
  }
  int64_t previous = 0;
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] < previous) {
      return absl::DataLossError(absl::StrCat("the catalogue's ", what, " offset ", i, " is ",
                                              offsets[i], ", which is less than ", previous,
                                              " before it"));
    }
    if (offsets[i] > static_cast<int64_t>(text.size())) {
      return absl::DataLossError(absl::StrCat("the catalogue's ", what, " offset ", i, " is ",
                                              offsets[i], ", past the end of its ", text.size(),
                                              " bytes of text"));
    }
    previous = offsets[i];
  }
  return absl::OkStatus();
}

struct OwnedTexts {
  std::string ids;
  std::string records;
  std::vector<int64_t> id_offsets;
  std::vector<int64_t> record_offsets;
};

void Concatenate(const std::vector<std::string>& parts, std::string& text,
                 std::vector<int64_t>& offsets) {
  size_t size = 0;
  for (const std::string& part : parts) size += part.size();
  text.reserve(size);
  offsets.reserve(parts.size() + 1);
  offsets.push_back(0);
  for (const std::string& part : parts) {
    text.append(part);
    offsets.push_back(static_cast<int64_t>(text.size()));
  }
}

}  // namespace

absl::StatusOr<Catalogue> Catalogue::Create(absl::string_view ids,
                                            std::span<const int64_t> id_offsets,
                                            absl::string_view records,
                                            std::span<const int64_t> record_offsets,
                                            std::shared_ptr<const void> owner) {
  if (absl::Status status = CheckOffsets("id", ids, id_offsets); !status.ok()) return status;
  if (absl::Status status = CheckOffsets("record", records, record_offsets); !status.ok())
    return status;
  if (id_offsets.size() != record_offsets.size()) {
    return absl::DataLossError(absl::StrCat("the catalogue has ", id_offsets.size() - 1,
                                            " ids but ", record_offsets.size() - 1, " records"));
  }
  const size_t count = id_offsets.size() - 1;
  constexpr size_t kMaxItems = std::numeric_limits<int32_t>::max() - 1;
  if (count > kMaxItems) {
    return absl::InvalidArgumentError(
        absl::StrCat("the catalogue has ", count, " items, but item numbers end at ", kMaxItems));
  }
  Catalogue catalogue;
  catalogue.ids_ = ids;
  catalogue.id_offsets_ = id_offsets;
  catalogue.records_ = records;
  catalogue.record_offsets_ = record_offsets;
  catalogue.owner_ = std::move(owner);
  catalogue.numbers_.reserve(count);
  for (int32_t item = 1; item <= static_cast<int32_t>(count); ++item) {
    const absl::string_view id = catalogue.id(item);
    if (id.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("item ", item, " has an empty id; every item needs one"));
    }
    const auto [found, inserted] = catalogue.numbers_.try_emplace(id, item);
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat("items ", found->second, " and ", item,
                                                     " share the id '", id, "'; ids must differ"));
    }
  }
  return catalogue;
}

absl::StatusOr<Catalogue> Catalogue::Create(const std::vector<std::string>& ids,
                                            const std::vector<std::string>& records) {
  auto texts = std::make_shared<OwnedTexts>();
  Concatenate(ids, texts->ids, texts->id_offsets);
  Concatenate(records, texts->records, texts->record_offsets);
  const OwnedTexts& view = *texts;
  return Create(view.ids, view.id_offsets, view.records, view.record_offsets, std::move(texts));
}

std::optional<int32_t> Catalogue::Find(absl::string_view id) const {
  const auto found = numbers_.find(id);
  if (found == numbers_.end()) return std::nullopt;
  return found->second;
}

std::string Catalogue::Field(int64_t item, absl::string_view name) const {
  return RecordField(record(item), name);
}

}  // namespace nestrec

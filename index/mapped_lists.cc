#include "index/mapped_lists.h"

#include <faiss/IVFlib.h>

#include <array>
#include <cstring>
#include <typeinfo>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mapping_guard.h"
#include "base/status_macros.h"
#include "index/faiss_compat.h"

namespace nestrec {
namespace {

constexpr uint64_t kAlignment = 64;

uint64_t Aligned(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

class MappedLists final : public faiss::ReadOnlyInvertedLists {
 public:
  struct List {
    const faiss_compat::IndexId* ids;
    const uint8_t* codes;
    size_t size;
  };
  MappedLists(size_t code_size, std::vector<List> lists, std::shared_ptr<const MappedFile> mapping)
      : faiss::ReadOnlyInvertedLists(lists.size(), code_size),
        lists_(std::move(lists)),
        mapping_(std::move(mapping)) {}

  size_t list_size(size_t list) const override { return lists_[list].size; }
  const uint8_t* get_codes(size_t list) const override { return lists_[list].codes; }
  const faiss_compat::IndexId* get_ids(size_t list) const override { return lists_[list].ids; }
  bool intact() const { return !LostBytes(mapping_->data()); }

 private:
  std::vector<List> lists_;
  std::shared_ptr<const MappedFile> mapping_;
};

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the lists of the index are damaged: ", what));
}

}  // namespace

faiss::IndexIVF* WithPlainLists(faiss::Index& index) {
  faiss::IndexIVF* ivf = faiss::ivflib::try_extract_index_ivf(&index);
  if (ivf == nullptr || ivf->invlists == nullptr) return nullptr;
  const std::type_info& kind = typeid(*ivf->invlists);
  return kind == typeid(faiss::ArrayInvertedLists) || kind == typeid(MappedLists) ? ivf : nullptr;
}

bool ListsIntact(faiss::Index& index) {
  const faiss::IndexIVF* ivf = WithPlainLists(index);
  if (ivf == nullptr) return true;
  const auto* mapped = dynamic_cast<const MappedLists*>(ivf->invlists);
  return mapped == nullptr || mapped->intact();
}

uint64_t ListSectionBytes(const faiss::InvertedLists* lists) {
  uint64_t bytes = 2 * sizeof(uint64_t);
  if (lists == nullptr) return bytes;
  bytes += lists->nlist * sizeof(uint64_t);
  for (size_t list = 0; list < lists->nlist; ++list) {
    const uint64_t size = lists->list_size(list);
    bytes = Aligned(bytes) + size * sizeof(int64_t);
    bytes = Aligned(bytes) + size * lists->code_size;
  }
  return bytes;
}

absl::Status WriteListSection(const faiss::InvertedLists* lists,
                              const std::function<absl::Status(const void*, size_t)>& write) {
  uint64_t offset = 0;
  const auto put = [&](const void* data, uint64_t bytes) {
    offset += bytes;
    return bytes == 0 ? absl::OkStatus() : write(data, bytes);
  };
  const auto align = [&] {
    constexpr std::array<std::byte, kAlignment> kZeros{};
    return put(kZeros.data(), Aligned(offset) - offset);
  };
  const std::array<uint64_t, 2> head = {lists == nullptr ? 0 : lists->nlist,
                                        lists == nullptr ? 0 : lists->code_size};
  NESTREC_RETURN_IF_ERROR(put(head.data(), sizeof(head)));
  if (lists == nullptr) return absl::OkStatus();
  std::vector<uint64_t> sizes(lists->nlist);
  for (size_t list = 0; list < sizes.size(); ++list) sizes[list] = lists->list_size(list);
  NESTREC_RETURN_IF_ERROR(put(sizes.data(), sizes.size() * sizeof(uint64_t)));
  for (size_t list = 0; list < sizes.size(); ++list) {
    NESTREC_RETURN_IF_ERROR(align());
    faiss::InvertedLists::ScopedIds ids(lists, list);
    NESTREC_RETURN_IF_ERROR(put(ids.get(), sizes[list] * sizeof(int64_t)));
    NESTREC_RETURN_IF_ERROR(align());
    faiss::InvertedLists::ScopedCodes codes(lists, list);
    NESTREC_RETURN_IF_ERROR(put(codes.get(), sizes[list] * lists->code_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<faiss::InvertedLists>> MapListSection(
    std::span<const std::byte> section, int64_t items, std::shared_ptr<const MappedFile> mapping) {
  std::array<uint64_t, 2> head;
  if (section.size() < sizeof(head)) return Damaged("they end in their head");
  std::memcpy(head.data(), section.data(), sizeof(head));
  const auto [count, code_size] = head;
  uint64_t offset = sizeof(head);
  if (count == 0) {
    if (section.size() != offset) return Damaged("something comes after none");
    return nullptr;
  }
  if (count > (section.size() - offset) / sizeof(uint64_t)) {
    return Damaged(absl::StrCat("there are not ", count, " of them"));
  }
  std::vector<uint64_t> sizes(count);
  std::memcpy(sizes.data(), section.data() + offset, count * sizeof(uint64_t));
  offset += count * sizeof(uint64_t);
  // The next `entries` of `bytes` each; null where the section is too short for them.
  const auto take = [&](uint64_t entries, uint64_t bytes) -> const std::byte* {
    offset = Aligned(offset);
    if (offset > section.size() || (bytes > 0 && entries > (section.size() - offset) / bytes)) {
      return nullptr;
    }
    const std::byte* here = section.data() + offset;
    offset += entries * bytes;
    return here;
  };
  std::vector<MappedLists::List> lists;
  lists.reserve(count);
  uint64_t entries = 0;
  for (const uint64_t size : sizes) {
    const std::byte* ids = take(size, sizeof(int64_t));
    const std::byte* codes = ids == nullptr ? nullptr : take(size, code_size);
    if (codes == nullptr) return Damaged(absl::StrCat("list ", lists.size(), " is cut"));
    lists.push_back({.ids = reinterpret_cast<const faiss_compat::IndexId*>(ids),
                     .codes = reinterpret_cast<const uint8_t*>(codes),
                     .size = size});
    entries += size;
    for (uint64_t i = 0; i < size; ++i) {
      const int64_t id = lists.back().ids[i];
      if (id < 0 || id >= items) return Damaged(absl::StrCat("vector ", id, " of ", items));
    }
  }
  if (offset != section.size()) return Damaged("something comes after the last");
  if (entries != static_cast<uint64_t>(items)) {
    return Damaged(absl::StrCat("they have ", entries, " entries for ", items, " vectors"));
  }
  return std::make_unique<MappedLists>(code_size, std::move(lists), std::move(mapping));
}

ListsTakenOut::ListsTakenOut(faiss::IndexIVF& index)
    : index_(index),
      lists_(index.invlists),
      empty_(index.invlists->nlist, index.invlists->code_size) {
  index_.invlists = &empty_;
}

ListsTakenOut::~ListsTakenOut() { index_.invlists = lists_; }

}  // namespace nestrec

#include "server/live/item_view.h"

#include <algorithm>

namespace nestrec {

int64_t LiveEntry::bytes() const {
  return static_cast<int64_t>(sizeof(*this) + id.capacity() +
                              (record.has_value() ? record->capacity() : 0) +
                              vector.capacity() * sizeof(float)) +
         attributes.bytes();
}

ItemView::ItemView(const Catalogue& catalogue, Changes changes)
    : catalogue_(&catalogue), changes_(std::move(changes)) {
  counts_.skipped = changes_.skipped;
  if (changes_.entries.empty() && changes_.items == catalogue.size()) return;
  std::vector<ItemOverlay::Row> rows;
  std::vector<int32_t> hidden;
  std::vector<AttributeOverlay::Changed> attributes;
  for (const auto& [number, entry] : changes_.entries) {
    const bool is_new = number > catalogue.size();
    counts_.bytes += entry->bytes();
    ++(is_new ? counts_.added : entry->removed ? counts_.removed : counts_.changed);
    if (is_new) new_ids_.emplace(entry->id, number);
    if (!is_new && (entry->removed || !entry->vector.empty())) hidden.push_back(number);
    if (!entry->removed && !entry->vector.empty()) rows.push_back({number, entry->vector.data()});
    if (is_new || entry->record.has_value()) {
      attributes.push_back({.item = number, .attributes = &entry->attributes});
    }
  }
  overlay_.emplace(catalogue.size(), changes_.items, std::move(rows), std::move(hidden));
  attributes_ = AttributeOverlay(changes_.items, std::move(attributes));
  counts_.bytes += overlay_->bytes();
}

int64_t ItemView::listed() const { return catalogue_->size() + counts_.added - counts_.removed; }

const LiveEntry* ItemView::EntryOf(int32_t item) const {
  const auto found =
      std::lower_bound(changes_.entries.begin(), changes_.entries.end(), item,
                       [](const Numbered& entry, int32_t number) { return entry.first < number; });
  return found != changes_.entries.end() && found->first == item ? found->second.get() : nullptr;
}

std::optional<int32_t> ItemView::Find(absl::string_view id) const {
  if (const std::optional<int32_t> number = catalogue_->Find(id)) return number;
  const auto found = new_ids_.find(id);
  return found == new_ids_.end() ? std::nullopt : std::optional(found->second);
}

bool ItemView::IsListed(int32_t item) const {
  const LiveEntry* entry = EntryOf(item);
  return entry != nullptr ? !entry->removed : item >= 1 && item <= catalogue_->size();
}

absl::string_view ItemView::id(int32_t item) const {
  return item <= catalogue_->size() ? catalogue_->id(item) : absl::string_view(EntryOf(item)->id);
}

absl::string_view ItemView::record(int32_t item) const {
  const LiveEntry* entry = EntryOf(item);
  if (entry != nullptr && entry->record.has_value()) return *entry->record;
  return item <= catalogue_->size() ? catalogue_->record(item) : absl::string_view("{}");
}

const float* ItemView::RowOf(int32_t item) const {
  if (changes_.entries.empty()) return nullptr;
  const LiveEntry* entry = EntryOf(item);
  return entry != nullptr && !entry->vector.empty() ? entry->vector.data() : nullptr;
}

uint64_t ItemView::NewestChange(std::span<const int32_t> items) const {
  uint64_t newest = changes_.forgotten;
  if (changes_.entries.empty()) return newest;
  for (const int32_t item : items) {
    const LiveEntry* entry = EntryOf(item);
    if (entry != nullptr) newest = std::max(newest, entry->vector_changed);
  }
  return newest;
}

}  // namespace nestrec

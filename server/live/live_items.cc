#include "server/live/live_items.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/guard.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "model/item_projection.h"
#include "server/catalogue_attributes.h"

namespace nestrec {
namespace {

constexpr char kTextModality[] = "text";
constexpr int kSkippedLogged = 5;
// The file is written anew when it is this much larger than what is kept, and twice as large.
constexpr int64_t kLeastGarbageBytes = 1 << 20;

std::vector<ModalityRow> FeaturesOf(const v1::StoredItem& item) {
  std::vector<ModalityRow> rows;
  for (const v1::StoredFeatures& features : item.features()) {
    rows.push_back({features.modality(), {features.values().begin(), features.values().end()}});
  }
  return rows;
}

bool HasFeatures(const v1::StoredItem& item) {
  return item.encode_text() || !item.features().empty();
}

int64_t BytesOf(const v1::StoredItem& item) { return static_cast<int64_t>(item.ByteSizeLong()); }

// The text encoder's vector of the item's record, in place of features of that name.
absl::Status EncodeText(absl::string_view record, const TextEncoder& encoder,
                        std::vector<ModalityRow>& rows) {
  ModalityRow row{.modality = kTextModality,
                  .values = encoder.Encode(ItemText(record, encoder.fields()))};
  const bool is_known =
      std::any_of(row.values.begin(), row.values.end(), [](float value) { return value != 0; });
  if (!is_known && rows.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "has no word in the fields ", absl::StrJoin(encoder.fields(), ", "),
        " of its record that the model's text encoder knows; write more there, or give features"));
  }
  rows.push_back(std::move(row));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LiveItems>> LiveItems::Open(const Options& options, const Log& log) {
  std::unique_ptr<LiveItems> live(new LiveItems(options, log));
  const MutexLock lock(live->mutex_);
  LiveItems* const raw = live.get();
  NESTREC_ASSIGN_OR_RETURN(ItemLog::Opened opened,
                           ItemLog::Open(options.folder, [raw](v1::StoredItem item) {
                             raw->Remember(item, 1);
                             return absl::OkStatus();
                           }));
  live->file_ = std::move(opened.log);
  live->generation_ = 1;
  if (opened.dropped_bytes > 0) {
    log.Warning("live_items_cut", {{"path", live->file_->path()},
                                   {"bytes", opened.dropped_bytes},
                                   {"why", "the last change was never completed"}});
  }
  log.Info("live_items_read",
           {{"path", live->file_->path()},
            {"upserted", live->upserted_},
            {"removed", static_cast<int64_t>(live->kept_.size()) - live->upserted_},
            {"bytes", live->file_->size_bytes()}});
  live->CompactIfWorthwhile();
  return live;
}

int64_t LiveItems::kept() const {
  const MutexLock lock(mutex_);
  return upserted_;
}

void LiveItems::Remember(const v1::StoredItem& item, uint64_t vector_changed) {
  const auto found = kept_.find(item.item_id());
  if (found != kept_.end()) {
    bytes_ -= BytesOf(found->second.item);
    upserted_ -= found->second.item.removed() ? 0 : 1;
    if (item.forgotten()) kept_.erase(found);
  }
  if (item.forgotten()) return;
  bytes_ += BytesOf(item);
  upserted_ += item.removed() ? 0 : 1;
  kept_[item.item_id()] = {.item = item, .vector_changed = vector_changed};
}

std::vector<std::pair<std::shared_ptr<const Snapshot>, LiveItems::Model*>> LiveItems::Models() {
  std::vector<std::pair<std::shared_ptr<const Snapshot>, Model*>> alive;
  for (auto model = models_.begin(); model != models_.end();) {
    if (std::shared_ptr<const Snapshot> snapshot = model->snapshot.lock()) {
      alive.emplace_back(std::move(snapshot), &*model);
      ++model;
    } else {
      model = models_.erase(model);
    }
  }
  return alive;
}

absl::StatusOr<std::shared_ptr<const LiveEntry>> LiveItems::EntryFor(const Kept& kept,
                                                                     const Snapshot& snapshot,
                                                                     Model& model) {
  const v1::StoredItem& item = kept.item;
  const std::optional<int32_t> number = snapshot.catalogue().Find(item.item_id());
  auto entry = std::make_shared<LiveEntry>();
  entry->id = item.item_id();
  if (item.removed()) {
    entry->removed = true;
    return entry;
  }
  if (item.has_record()) {
    entry->record = item.record();
    entry->attributes = AttributesOf(item.record(), snapshot.filter_fields());
  }
  if (!HasFeatures(item)) {
    if (number.has_value()) return entry;
    return absl::InvalidArgumentError(
        "is not one of the model's items and has no features; give features, or set encode_text");
  }
  const Checkpoint& checkpoint = snapshot.checkpoint();
  std::vector<ModalityRow> rows = FeaturesOf(item);
  if (item.encode_text()) {
    if (!checkpoint.has_text_encoder()) {
      return absl::FailedPreconditionError(
          "encode_text needs the text encoder, which this model's checkpoint does not hold; give "
          "features, or train a model on text features that `nestrec prepare` made");
    }
    if (!model.text_encoder.has_value()) {
      model.text_encoder.emplace(TextEncoder::Load(checkpoint.file(), "text_encoder."));
    }
    NESTREC_RETURN_IF_ERROR(model.text_encoder->status());
    const absl::string_view record = item.has_record()    ? absl::string_view(item.record())
                                     : number.has_value() ? snapshot.catalogue().record(*number)
                                                          : absl::string_view("{}");
    NESTREC_RETURN_IF_ERROR(EncodeText(record, **model.text_encoder, rows));
  }
  NESTREC_RETURN_IF_ERROR(CheckModalityRows(checkpoint.info(), rows));
  entry->vector = ProjectItem(checkpoint.view(), checkpoint.info(), rows);
  entry->vector_changed = kept.vector_changed;
  for (const float value : entry->vector) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          "has features so large that its embedding is not finite; scale them as the model's were");
    }
  }
  if (snapshot.item_vectors().half()) {
    for (float& value : entry->vector) {
      if (std::abs(value) > kLargestHalf) {
        return absl::InvalidArgumentError(
            absl::StrCat("has features so large that its embedding has ", value,
                         "; this server stores items "
                         "as float16, which ends at ",
                         kLargestHalf, ": scale them as the model's were"));
      }
      value = FloatOfHalf(HalfOfFloat(value));
    }
  }
  return entry;
}

LiveItems::Change LiveItems::ChangeFor(const std::string& id, const Kept* kept,
                                       const Snapshot& snapshot, Model& model) {
  model.skipped.erase(id);
  const bool is_trained = snapshot.catalogue().Find(id).has_value();
  if (kept == nullptr || (kept->item.removed() && !is_trained)) return {.id = id, .entry = nullptr};
  auto entry = EntryFor(*kept, snapshot, model);
  if (entry.ok()) return {.id = id, .entry = *std::move(entry)};
  model.skipped[id] = std::string(entry.status().message());
  if (!is_trained) return {.id = id, .entry = nullptr};
  // As the model has it, but for the record.
  Kept record_alone = *kept;
  record_alone.item.clear_features();
  record_alone.item.clear_encode_text();
  return {.id = id, .entry = *EntryFor(record_alone, snapshot, model)};
}

std::optional<int32_t> LiveItems::NumberFor(const std::string& id, Model& model, uint64_t oldest) {
  const auto known = model.numbers.find(id);
  if (known != model.numbers.end()) return known->second;
  int32_t number = 0;
  if (!model.freed.empty() && model.freed.front().first <= oldest) {
    number = model.freed.front().second;
    model.freed.pop_front();
  } else if (model.next < std::numeric_limits<int32_t>::max() - 1) {
    number = model.next++;
  } else {
    return std::nullopt;
  }
  model.numbers.emplace(id, number);
  return number;
}

void LiveItems::Publish(const Snapshot& snapshot, Model& model, std::vector<Change> changes) {
  const std::shared_ptr<const ItemView> before = snapshot.items();
  while (!model.old_views.empty() && model.old_views.front().second.expired()) {
    model.old_views.pop_front();
  }
  const uint64_t oldest =
      model.old_views.empty() ? before->generation() : model.old_views.front().first;
  ItemView::Changes after = before->changes();
  after.generation = generation_;
  absl::flat_hash_map<int32_t, std::shared_ptr<const LiveEntry>> changed;
  for (Change& change : changes) {
    std::optional<int32_t> number = snapshot.catalogue().Find(change.id);
    if (!number.has_value() && change.entry == nullptr) {
      const auto known = model.numbers.find(change.id);
      if (known == model.numbers.end()) continue;
      number = known->second;
      model.freed.emplace_back(generation_, *number);
      model.numbers.erase(known);
    } else if (!number.has_value()) {
      number = NumberFor(change.id, model, oldest);
      if (!number.has_value()) continue;  // 2^31 items
    }
    changed[*number] = std::move(change.entry);
    after.items = std::max<int64_t>(after.items, *number);
  }
  std::vector<ItemView::Numbered> entries;
  entries.reserve(after.entries.size() + changed.size());
  for (ItemView::Numbered& old : after.entries) {
    const auto replaced = changed.find(old.first);
    const LiveEntry* next = replaced == changed.end() ? old.second.get() : replaced->second.get();
    const bool lost_vector =
        !old.second->vector.empty() && (next == nullptr || next->vector.empty());
    if (lost_vector) after.forgotten = generation_;
    if (replaced == changed.end()) entries.push_back(std::move(old));
  }
  for (auto& [number, entry] : changed) {
    if (entry != nullptr) entries.emplace_back(number, std::move(entry));
  }
  std::sort(
      entries.begin(), entries.end(),
      [](const ItemView::Numbered& a, const ItemView::Numbered& b) { return a.first < b.first; });
  after.entries = std::move(entries);
  after.skipped = static_cast<int64_t>(model.skipped.size());
  model.old_views.emplace_back(before->generation(), before);
  snapshot.SetItems(std::make_shared<const ItemView>(snapshot.catalogue(), std::move(after)));
}

absl::Status LiveItems::Attach(const std::shared_ptr<const Snapshot>& snapshot) {
  const MutexLock lock(mutex_);
  return Guard("applying live items", [&]() -> absl::Status {
    for (const auto& [attached, model] : Models()) {
      if (attached == snapshot) return absl::OkStatus();
    }
    Model& model = models_.emplace_back();
    model.next = static_cast<int32_t>(snapshot->catalogue().size()) + 1;
    std::vector<Change> changes;
    for (const auto& [id, kept] : kept_) {
      changes.push_back(ChangeFor(id, &kept, *snapshot, model));
    }
    // The same numbers at every start.
    std::sort(changes.begin(), changes.end(),
              [](const Change& a, const Change& b) { return a.id < b.id; });
    Publish(*snapshot, model, std::move(changes));
    model.snapshot = snapshot;
    int logged = 0;
    for (const auto& [id, why] : model.skipped) {
      if (++logged > kSkippedLogged) break;
      log_.Warning("live_item_skipped",
                   {{"item", Printable(id)}, {"model", snapshot->version()}, {"why", why}});
    }
    const LiveCounts counts = snapshot->items()->counts();
    log_.Info("live_items", {{"model", snapshot->version()},
                             {"added", counts.added},
                             {"changed", counts.changed},
                             {"removed", counts.removed},
                             {"skipped", counts.skipped},
                             {"bytes", counts.bytes}});
    return absl::OkStatus();
  });
}

absl::Status LiveItems::CheckRoom(int64_t items, int64_t bytes) const {
  if (items > options_.max_items) {
    return absl::ResourceExhaustedError(absl::StrCat(
        items, " upserted items would be kept, but at most ", options_.max_items,
        " are (--max-live-items); remove or restore some, or train a model with them"));
  }
  if (bytes > options_.max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        bytes, " bytes of upserted items would be kept, but at most ", options_.max_bytes,
        " are (--max-live-bytes); remove or restore some, or train a model with them"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LiveItems::UpsertOutcome> LiveItems::Upsert(std::vector<Upserted> items,
                                                           const Snapshot& target,
                                                           std::vector<BadItem>& bad) {
  const MutexLock lock(mutex_);
  return Guard("upserting items", [&]() -> absl::StatusOr<UpsertOutcome> {
    const uint64_t generation = generation_ + 1;
    UpsertOutcome outcome;
    std::vector<Kept> merged;
    int64_t count = upserted_;
    int64_t bytes = bytes_;
    for (Upserted& given : items) {
      Kept& next = merged.emplace_back();
      const auto found = kept_.find(given.id);
      if (found != kept_.end()) {
        bytes -= BytesOf(found->second.item);
        count -= found->second.item.removed() ? 0 : 1;
        if (!found->second.item.removed()) next = found->second;
      }
      next.item.set_item_id(given.id);
      if (given.record.has_value()) next.item.set_record(*std::move(given.record));
      // A text that is made of the record changes with it.
      if (given.encode_text || !given.features.empty() || next.item.encode_text()) {
        next.vector_changed = generation;
      }
      if (given.encode_text || !given.features.empty()) {
        next.item.clear_features();
        next.item.set_encode_text(given.encode_text);
        for (const ModalityRow& row : given.features) {
          v1::StoredFeatures& features = *next.item.add_features();
          features.set_modality(row.modality);
          features.mutable_values()->Assign(row.values.begin(), row.values.end());
        }
      }
      bytes += BytesOf(next.item);
      ++count;
    }
    NESTREC_RETURN_IF_ERROR(CheckRoom(count, bytes));

    const auto models = Models();
    if (std::none_of(models.begin(), models.end(),
                     [&](const auto& model) { return model.first.get() == &target; })) {
      return absl::InternalError("the model does not follow live items");
    }
    std::vector<std::vector<Change>> changes(models.size());
    for (size_t m = 0; m < models.size(); ++m) {
      const auto& [snapshot, model] = models[m];
      if (snapshot.get() != &target) continue;
      for (size_t i = 0; i < merged.size(); ++i) {
        auto entry = EntryFor(merged[i], *snapshot, *model);
        if (!entry.ok()) {
          bad.push_back({.index = i, .why = entry.status()});
          continue;
        }
        const auto known = snapshot->items()->Find(merged[i].item.item_id());
        const bool is_listed = known.has_value() && snapshot->items()->IsListed(*known);
        ++(is_listed ? outcome.changed : outcome.added);
        changes[m].push_back({.id = merged[i].item.item_id(), .entry = *std::move(entry)});
      }
    }
    if (!bad.empty()) {
      const bool lacks = std::all_of(bad.begin(), bad.end(), [](const BadItem& item) {
        return absl::IsFailedPrecondition(item.why);
      });
      return lacks ? bad.front().why
                   : absl::InvalidArgumentError("some of the items cannot be used");
    }
    v1::StoredItems stored;
    for (const Kept& kept : merged) *stored.add_items() = kept.item;
    NESTREC_RETURN_IF_ERROR(Keep(stored));
    generation_ = generation;
    for (const Kept& kept : merged) Remember(kept.item, kept.vector_changed);
    for (size_t m = 0; m < models.size(); ++m) {
      const auto& [snapshot, model] = models[m];
      if (snapshot.get() != &target) {
        for (const Kept& kept : merged) {
          changes[m].push_back(ChangeFor(kept.item.item_id(), &kept, *snapshot, *model));
        }
      } else {
        for (const Kept& kept : merged) model->skipped.erase(kept.item.item_id());
      }
      Publish(*snapshot, *model, std::move(changes[m]));
    }
    CompactIfWorthwhile();
    return outcome;
  });
}

absl::StatusOr<LiveItems::RemoveOutcome> LiveItems::Remove(std::span<const std::string> ids,
                                                           bool restore) {
  const MutexLock lock(mutex_);
  return Guard("removing items", [&]() -> absl::StatusOr<RemoveOutcome> {
    const auto models = Models();
    const auto is_trained = [&](const std::string& id) {
      return std::any_of(models.begin(), models.end(), [&](const auto& model) {
        return model.first->catalogue().Find(id).has_value();
      });
    };
    RemoveOutcome outcome;
    v1::StoredItems stored;
    absl::flat_hash_set<absl::string_view> seen;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto kept = kept_.find(ids[i]);
      const bool trained = is_trained(ids[i]);
      if (!trained && kept == kept_.end()) {
        outcome.unknown.push_back(i);
        continue;
      }
      const bool removed = kept != kept_.end() && kept->second.item.removed();
      const bool is_done = restore ? kept == kept_.end() : removed;
      if (is_done || !seen.insert(ids[i]).second) continue;
      ++outcome.removed;
      v1::StoredItem& item = *stored.add_items();
      item.set_item_id(ids[i]);
      if (restore || !trained) {
        item.set_forgotten(true);
      } else {
        item.set_removed(true);
      }
    }
    if (stored.items().empty()) return outcome;
    NESTREC_RETURN_IF_ERROR(Keep(stored));
    ++generation_;
    for (const v1::StoredItem& item : stored.items()) Remember(item, generation_);
    for (const auto& [snapshot, model] : models) {
      std::vector<Change> changes;
      for (const v1::StoredItem& item : stored.items()) {
        const Kept kept{.item = item, .vector_changed = generation_};
        changes.push_back(
            ChangeFor(item.item_id(), item.forgotten() ? nullptr : &kept, *snapshot, *model));
      }
      Publish(*snapshot, *model, std::move(changes));
    }
    CompactIfWorthwhile();
    return outcome;
  });
}

absl::Status LiveItems::Keep(const v1::StoredItems& changes) {
  if (!file_->usable()) {
    NESTREC_RETURN_IF_ERROR(RewriteLog());
  }
  return file_->Append(changes);
}

absl::Status LiveItems::RewriteLog() {
  auto next = kept_.begin();
  return file_->Rewrite([&]() -> const v1::StoredItem* {
    return next == kept_.end() ? nullptr : &(next++)->second.item;
  });
}

void LiveItems::CompactIfWorthwhile() {
  const auto size = static_cast<int64_t>(file_->size_bytes());
  if (size < 2 * bytes_ + kLeastGarbageBytes) return;
  if (const absl::Status status = RewriteLog(); !status.ok()) {
    log_.Warning("live_items_not_compacted", {{"path", file_->path()}, {"why", status.message()}});
  }
}

}  // namespace nestrec

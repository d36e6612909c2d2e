#include "server/item_requests.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "server/responses.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

constexpr size_t kViolationsReported = 10;
// A full disk takes a person, a busy one does not.
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

std::optional<FieldViolation> CheckId(const std::string& path, const std::string& id,
                                      const RequestLimits& limits) {
  if (id.empty()) return FieldViolation{path, "is empty"};
  if (id.size() > limits.max_id_bytes) {
    return FieldViolation{path, absl::StrCat("has ", id.size(), " bytes; at most ",
                                             limits.max_id_bytes, " are allowed")};
  }
  return std::nullopt;
}

std::optional<FieldViolation> CheckCount(absl::string_view field, int count, int most) {
  if (count >= 1 && count <= most) return std::nullopt;
  return FieldViolation{std::string(field),
                        absl::StrCat(count, " entries; 1 to ", most, " are allowed",
                                     count == 0 ? "" : "; send them in parts")};
}

// Walks a text that should be a JSON object, without building anything of it.
class ObjectCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return depth_ > 0; }
  bool boolean(bool /*value*/) override { return depth_ > 0; }
  bool number_integer(number_integer_t /*value*/) override { return depth_ > 0; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return depth_ > 0; }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return depth_ > 0;
  }
  bool string(string_t& /*value*/) override { return depth_ > 0; }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t /*elements*/) override { return depth_ > 0 && Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& /*value*/) override { return true; }
  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    position_ = position;
    return false;
  }

  std::optional<size_t> position() const { return position_; }

 private:
  bool Open() {
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }

  int64_t depth_ = 0;
  std::optional<size_t> position_;
};

std::optional<FieldViolation> CheckRecord(const std::string& path, const std::string& record,
                                          const RequestLimits& limits) {
  if (record.size() > limits.max_record_bytes) {
    return FieldViolation{path, absl::StrCat("has ", record.size(), " bytes; at most ",
                                             limits.max_record_bytes, " are allowed")};
  }
  ObjectCheck check;
  if (nlohmann::json::sax_parse(record, &check)) return std::nullopt;
  return FieldViolation{
      path, absl::StrCat("is not a JSON object",
                         check.position().has_value()
                             ? absl::StrCat(": it cannot be read at byte ", *check.position())
                             : std::string(),
                         "; write it as a line of items.jsonl")};
}

std::optional<FieldViolation> CheckItem(const std::string& path, const v1::ItemUpsert& item,
                                        const RequestLimits& limits) {
  if (auto violation = CheckId(path + ".item_id", item.item_id(), limits)) return violation;
  if (item.has_record()) {
    if (auto violation = CheckRecord(path + ".record", item.record(), limits)) return violation;
  }
  if (item.features_size() > limits.max_modalities) {
    return FieldViolation{path + ".features",
                          absl::StrCat(item.features_size(), " entries; at most ",
                                       limits.max_modalities, " are allowed")};
  }
  if (!item.has_record() && item.features().empty() && !item.encode_text()) {
    return FieldViolation{path, "changes nothing; give a record, features, or set encode_text"};
  }
  return std::nullopt;
}

absl::Status WithRetry(absl::Status status) {
  return absl::IsUnavailable(status) ? WithRetryDelay(std::move(status), kRetryDelay) : status;
}

}  // namespace

absl::Status NoLiveItemsError() {
  return absl::FailedPreconditionError(
      "this server takes no items; start it with --items-folder, or train a model that has them");
}

absl::StatusOr<std::vector<LiveItems::Upserted>> ValidateUpsert(
    const v1::UpsertItemsRequest& request, const RequestLimits& limits) {
  if (auto violation = CheckCount("items", request.items_size(), limits.max_upserts)) {
    return BadRequest({*violation});
  }
  std::vector<FieldViolation> violations;
  absl::flat_hash_set<absl::string_view> seen;
  std::vector<LiveItems::Upserted> items;
  for (int i = 0; i < request.items_size() && violations.size() < kViolationsReported; ++i) {
    const v1::ItemUpsert& item = request.items(i);
    const std::string path = absl::StrCat("items[", i, "]");
    auto violation = CheckItem(path, item, limits);
    if (!violation.has_value() && !seen.insert(item.item_id()).second) {
      violation = FieldViolation{path + ".item_id", "comes twice; send each item once"};
    }
    if (violation.has_value()) {
      violations.push_back(*std::move(violation));
      continue;
    }
    LiveItems::Upserted& upserted = items.emplace_back();
    upserted.id = item.item_id();
    if (item.has_record()) upserted.record = item.record();
    for (const v1::ItemFeatures& features : item.features()) {
      upserted.features.push_back(
          {features.modality(), {features.values().begin(), features.values().end()}});
    }
    upserted.encode_text = item.encode_text();
  }
  if (!violations.empty()) return BadRequest(violations);
  return items;
}

absl::Status ValidateRemove(const v1::RemoveItemsRequest& request, const RequestLimits& limits) {
  if (auto violation = CheckCount("item_ids", request.item_ids_size(), limits.max_upserts)) {
    return BadRequest({*violation});
  }
  for (int i = 0; i < request.item_ids_size(); ++i) {
    if (auto violation = CheckId(absl::StrCat("item_ids[", i, "]"), request.item_ids(i), limits)) {
      return BadRequest({*violation});
    }
  }
  return absl::OkStatus();
}

absl::Status UpsertItems(LiveItems& live, std::vector<LiveItems::Upserted> items,
                         const Snapshot& snapshot, v1::UpsertItemsResponse& response) {
  std::vector<LiveItems::BadItem> bad;
  const absl::StatusOr<LiveItems::UpsertOutcome> outcome =
      live.Upsert(std::move(items), snapshot, bad);
  if (!bad.empty() && absl::IsInvalidArgument(outcome.status())) {
    std::vector<FieldViolation> violations;
    for (const LiveItems::BadItem& item : bad) {
      if (violations.size() == kViolationsReported) break;
      violations.push_back(
          {absl::StrCat("items[", item.index, "]"), std::string(item.why.message())});
    }
    return BadRequest(violations);
  }
  if (!outcome.ok()) return WithRetry(outcome.status());
  response.set_added(static_cast<uint32_t>(outcome->added));
  response.set_changed(static_cast<uint32_t>(outcome->changed));
  FillLiveItems(*snapshot.items(), *response.mutable_live_items());
  return absl::OkStatus();
}

absl::Status RemoveItems(LiveItems& live, const std::vector<std::string>& ids, bool restore,
                         const Snapshot& snapshot, v1::RemoveItemsResponse& response) {
  const absl::StatusOr<LiveItems::RemoveOutcome> outcome = live.Remove(ids, restore);
  if (!outcome.ok()) return WithRetry(outcome.status());
  response.set_removed(static_cast<uint32_t>(outcome->removed));
  absl::flat_hash_set<absl::string_view> unknown;
  for (const size_t index : outcome->unknown) {
    if (!unknown.insert(ids[index]).second) continue;
    if (unknown.size() <= UnknownIds::kReported) response.add_unknown_item_ids(ids[index]);
  }
  response.set_unknown_item_count(static_cast<uint32_t>(unknown.size()));
  FillLiveItems(*snapshot.items(), *response.mutable_live_items());
  return absl::OkStatus();
}

}  // namespace nestrec

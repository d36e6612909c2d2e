// nestrec items: upserts and removes items of a running server.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/npy.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "model/item_record.h"
#include "model/prepare/line_reader.h"
#include "server/client.h"

namespace nestrec {
namespace {

// Well below the limits of a call.
constexpr int kItemsACall = 200;

struct ItemsFlags {
  ClientFlags client;
  std::string records;                // items.jsonl
  std::vector<std::string> features;  // text=new_text.npy
  bool encode_text = false;
  std::string ids, ids_file;
  bool restore = false;
};

struct FeatureRows {
  std::string modality;
  Matrix matrix;
};

void Print(const v1::LiveItemCounts& counts) {
  std::printf("now %lld added to the model's items, %lld changed, %lld removed\n",
              static_cast<long long>(counts.added()), static_cast<long long>(counts.changed()),
              static_cast<long long>(counts.removed()));
  if (counts.skipped() > 0) {
    std::printf("%lld upserted items are of no use to this model\n",
                static_cast<long long>(counts.skipped()));
  }
}

absl::StatusOr<std::vector<FeatureRows>> ReadFeatures(const std::vector<std::string>& flags) {
  std::vector<FeatureRows> all;
  for (const std::string& flag : flags) {
    const std::vector<std::string> parts = absl::StrSplit(flag, absl::MaxSplits('=', 1));
    if (parts.size() != 2 || parts[0].empty() || parts[1].empty()) {
      return UsageError(absl::InvalidArgumentError(
          absl::StrCat("--features: '", flag, "' is not modality=file.npy")));
    }
    NESTREC_ASSIGN_OR_RETURN(Matrix matrix, ReadNpy(parts[1]));
    all.push_back({.modality = parts[0], .matrix = std::move(matrix)});
  }
  return all;
}

std::string IdOf(absl::string_view record) {
  std::string id = RecordField(record, "item_id");
  return id.empty() ? RecordField(record, "asin") : id;
}

absl::Status RunUpsert(const ItemsFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const std::vector<FeatureRows> features, ReadFeatures(flags.features));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines,
                           LineReader::Open(flags.records));
  NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags.client));
  const RecommendClient client(std::move(options));
  int64_t added = 0;
  int64_t changed = 0;
  v1::UpsertItemsResponse response;
  for (int64_t row = 0;;) {
    v1::UpsertItemsRequest request;
    while (request.items_size() < kItemsACall) {
      NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
      if (!line.has_value()) break;
      if (absl::StripAsciiWhitespace(*line).empty()) continue;
      const std::string place = absl::StrCat(flags.records, ":", lines->number());
      NESTREC_RETURN_IF_ERROR(CheckUtf8(place, std::string(*line)));
      v1::ItemUpsert& item = *request.add_items();
      item.set_item_id(IdOf(*line));
      if (item.item_id().empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(place, ": is not a JSON object with an item_id (or asin)"));
      }
      item.set_record(std::string(*line));
      item.set_encode_text(flags.encode_text);
      for (const FeatureRows& rows : features) {
        if (row >= rows.matrix.rows) {
          return absl::InvalidArgumentError(absl::StrCat(place, ": the features of ", rows.modality,
                                                         " have ", rows.matrix.rows,
                                                         " rows; they need one for each item"));
        }
        v1::ItemFeatures& given = *item.add_features();
        given.set_modality(rows.modality);
        const std::span<const float> values = rows.matrix.row(row);
        given.mutable_values()->Assign(values.begin(), values.end());
      }
      ++row;
    }
    if (request.items().empty()) break;
    absl::StatusOr<v1::UpsertItemsResponse> answered = client.UpsertItems(request);
    if (!answered.ok()) {
      return absl::Status(answered.status().code(),
                          absl::StrCat("of the items ", row - request.items_size() + 1, " to ", row,
                                       ": ", answered.status().message()));
    }
    response = *std::move(answered);
    added += response.added();
    changed += response.changed();
  }
  std::printf("%lld items added, %lld changed\n", static_cast<long long>(added),
              static_cast<long long>(changed));
  Print(response.live_items());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> IdsOf(const ItemsFlags& flags) {
  std::vector<std::string> ids;
  NESTREC_RETURN_IF_ERROR(UsageError(CheckUtf8("--ids", flags.ids)));
  for (const absl::string_view id : absl::StrSplit(flags.ids, ',')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(id);
    if (!stripped.empty()) ids.emplace_back(stripped);
  }
  if (!flags.ids_file.empty()) {
    NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines,
                             LineReader::Open(flags.ids_file));
    while (true) {
      NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
      if (!line.has_value()) break;
      const std::string id(absl::StripAsciiWhitespace(*line));
      NESTREC_RETURN_IF_ERROR(CheckUtf8(absl::StrCat(flags.ids_file, ":", lines->number()), id));
      if (!id.empty()) ids.push_back(id);
    }
  }
  if (ids.empty()) {
    return UsageError(absl::InvalidArgumentError("name items with --ids or --ids-file"));
  }
  return ids;
}

absl::Status RunRemove(const ItemsFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const std::vector<std::string> ids, IdsOf(flags));
  NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags.client));
  const RecommendClient client(std::move(options));
  int64_t removed = 0;
  std::vector<std::string> unknown;
  v1::RemoveItemsResponse response;
  for (size_t begin = 0; begin < ids.size(); begin += kItemsACall) {
    v1::RemoveItemsRequest request;
    for (size_t i = begin; i < std::min(ids.size(), begin + kItemsACall); ++i) {
      request.add_item_ids(ids[i]);
    }
    request.set_restore(flags.restore);
    NESTREC_ASSIGN_OR_RETURN(response, client.RemoveItems(request));
    removed += response.removed();
    unknown.insert(unknown.end(), response.unknown_item_ids().begin(),
                   response.unknown_item_ids().end());
  }
  std::printf("%lld items %s\n", static_cast<long long>(removed),
              flags.restore ? "are as the model has them" : "removed");
  for (const std::string& id : unknown) {
    std::printf("no such item: %s\n", Printable(id).c_str());
  }
  Print(response.live_items());
  return absl::OkStatus();
}

}  // namespace

void AddItemsCommand(CLI::App& app, Command* selected) {
  CLI::App* command = app.add_subcommand("items", "Upsert and remove items of a running server");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, absl::Status (*run)(const ItemsFlags&)) {
    auto flags = std::make_shared<ItemsFlags>();
    flags->client.timeout_seconds = 60;
    CLI::App* sub = command->add_subcommand(name, what);
    AddClientFlags(*sub, flags->client);
    sub->callback([flags, selected, run] { *selected = [flags, run] { return run(*flags); }; });
    return std::pair(sub, flags);
  };
  const auto [upsert, upserted] = add("upsert", "Add items, or change them", RunUpsert);
  upsert
      ->add_option("--records", upserted->records,
                   "A JSON object per line, as items.jsonl: item_id (or asin) and fields")
      ->required();
  upsert
      ->add_option("--features", upserted->features,
                   "text=new_text.npy: the features of a modality, a row for each line")
      ->take_all()
      ->allow_extra_args(false);
  upsert->add_flag("--encode-text", upserted->encode_text,
                   "Make the text's features of the records, with the model's text encoder");
  const auto [remove, removed] = add("remove", "Let items not come back any more", RunRemove);
  CLI::Option* ids = remove->add_option("--ids", removed->ids, "Item ids, separated by commas");
  CLI::Option* ids_file = remove->add_option("--ids-file", removed->ids_file,
                                             "File with the ids instead, one per line");
  remove->add_flag("--restore", removed->restore,
                   "Forget what was upserted and removed of them instead");
  ids->excludes(ids_file);
}

}  // namespace nestrec

#include "cli/recommend_request.h"

#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "cli/flags.h"
#include "cli/item_condition.h"
#include "model/prepare/line_reader.h"

namespace nestrec {
namespace {

std::vector<std::string> SplitIds(const std::string& text) {
  std::vector<std::string> ids;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const absl::string_view id = absl::StripAsciiWhitespace(part);
    if (!id.empty()) {
      ids.emplace_back(id);
    }
  }
  return ids;
}

// An id per line, for ids with commas and for many of them.
absl::Status ReadIds(const std::string& path,
                     google::protobuf::RepeatedPtrField<std::string>& ids) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(path));
  while (true) {
    NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
    if (!line.has_value()) return absl::OkStatus();
    const std::string id(absl::StripAsciiWhitespace(*line));
    NESTREC_RETURN_IF_ERROR(CheckUtf8(absl::StrCat(path, ":", lines->number()), id));
    if (!id.empty()) {
      *ids.Add() = id;
    }
  }
}

// The ids of `flag`, or of its file; at most one of the two is given.
absl::Status AddIds(const char* flag, const std::string& list, const std::string& file,
                    google::protobuf::RepeatedPtrField<std::string>& ids) {
  NESTREC_RETURN_IF_ERROR(UsageError(CheckUtf8(flag, list)));
  for (std::string& id : SplitIds(list)) {
    *ids.Add() = std::move(id);
  }
  return file.empty() ? absl::OkStatus() : ReadIds(file, ids);
}

// Whose history at which width.
template <typename Request>
absl::Status AddHistory(const RequestFlags& flags, Request& request) {
  NESTREC_RETURN_IF_ERROR(UsageError(CheckUtf8("--user", flags.user)));
  request.set_user_id(flags.user);
  NESTREC_RETURN_IF_ERROR(UsageError(CheckUtf8("--tier", flags.tier.value_or(""))));
  if (flags.dim.has_value()) request.set_dim(*flags.dim);
  if (flags.tier.has_value()) request.set_tier(*flags.tier);
  return AddIds("--history", flags.history, flags.history_file,
                *request.mutable_history_item_ids());
}

// --where, --filter, --most and --diversity.
absl::Status AddFilters(const RequestFlags& flags, v1::RecommendRequest& request) {
  std::vector<v1::ItemFilter> filters;
  const auto named = [](const char* flag, const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
  };
  for (const std::string& text : flags.where) {
    NESTREC_RETURN_IF_ERROR(CheckUtf8("--where", text));
    absl::StatusOr<v1::ItemFilter> filter = ParseCondition(text);
    if (!filter.ok()) return named("--where", filter.status());
    filters.push_back(*std::move(filter));
  }
  if (!flags.filter.empty()) {
    NESTREC_RETURN_IF_ERROR(CheckUtf8("--filter", flags.filter));
    absl::StatusOr<v1::ItemFilter> filter = ParseFilterJson(flags.filter);
    if (!filter.ok()) return named("--filter", filter.status());
    filters.push_back(*std::move(filter));
  }
  if (!filters.empty()) {
    *request.mutable_filter() = EveryOf(std::move(filters));
  }
  for (const std::string& text : flags.most) {
    NESTREC_RETURN_IF_ERROR(CheckUtf8("--most", text));
    absl::StatusOr<v1::GroupCap> cap = ParseCap(text);
    if (!cap.ok()) return named("--most", cap.status());
    *request.add_caps() = *std::move(cap);
  }
  if (flags.relevance.has_value()) {
    request.mutable_diversity()->set_relevance(*flags.relevance);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::RecommendRequest> RequestOf(const RequestFlags& flags) {
  v1::RecommendRequest request;
  NESTREC_RETURN_IF_ERROR(AddHistory(flags, request));
  NESTREC_RETURN_IF_ERROR(
      AddIds("--exclude", flags.exclude, flags.exclude_file, *request.mutable_exclude_item_ids()));
  if (flags.k.has_value()) {
    request.set_k(*flags.k);
  }
  if (flags.min_score.has_value()) {
    request.set_min_score(*flags.min_score);
  }
  request.set_include_seen(flags.include_seen);
  NESTREC_RETURN_IF_ERROR(
      AddIds("--only", flags.only, flags.only_file, *request.mutable_only_item_ids()));
  if (!(flags.only.empty() && flags.only_file.empty()) && request.only_item_ids().empty()) {
    return UsageError(absl::InvalidArgumentError(
        "--only: names no item; leave it out to let every item come back"));
  }
  NESTREC_RETURN_IF_ERROR(UsageError(AddFilters(flags, request)));
  request.add_fields(kTitleField);
  request.set_explain(flags.explain);
  return request;
}

absl::StatusOr<v1::EncodeRequest> EncodeRequestOf(const RequestFlags& flags) {
  v1::EncodeRequest request;
  NESTREC_RETURN_IF_ERROR(AddHistory(flags, request));
  return request;
}

absl::StatusOr<v1::SimilarItemsRequest> SimilarRequestOf(const RequestFlags& flags) {
  NESTREC_RETURN_IF_ERROR(UsageError(CheckUtf8("--similar-to", flags.similar_to)));
  NESTREC_ASSIGN_OR_RETURN(v1::RecommendRequest same, RequestOf(flags));
  v1::SimilarItemsRequest request;
  request.set_item_id(flags.similar_to);
  if (same.has_k()) request.set_k(same.k());
  if (flags.dim.has_value()) request.set_dim(same.dim());
  if (flags.tier.has_value()) request.set_tier(same.tier());
  if (same.has_min_score()) request.set_min_score(same.min_score());
  request.mutable_exclude_item_ids()->Swap(same.mutable_exclude_item_ids());
  request.mutable_only_item_ids()->Swap(same.mutable_only_item_ids());
  if (same.has_filter()) request.mutable_filter()->Swap(same.mutable_filter());
  request.mutable_caps()->Swap(same.mutable_caps());
  if (same.has_diversity()) request.mutable_diversity()->Swap(same.mutable_diversity());
  request.mutable_fields()->Swap(same.mutable_fields());
  return request;
}

HistoryFlags AddHistoryFlags(CLI::App& command, RequestFlags* flags) {
  HistoryFlags added{};
  added.user = command.add_option("--user", flags->user,
                                  "User whose session is the history; --history follows it");
  added.history = command.add_option(
      "--history", flags->history, "Item ids, oldest first, separated by commas; none: a new user");
  added.history_file =
      command.add_option("--history-file", flags->history_file,
                         "File with the ids instead, one per line, so that they may have commas");
  added.dim = command.add_option("--dim", flags->dim, "Serve at this width");
  added.tier = command.add_option("--tier", flags->tier, "Serve in this class");
  added.history->excludes(added.history_file);
  added.dim->excludes(added.tier);
  return added;
}

WidthFlags AddRequestFlags(CLI::App& command, RequestFlags* flags) {
  CLI::Option* similar_to =
      command.add_option("--similar-to", flags->similar_to,
                         "Ask for items like this one (SimilarItems), not for a history's next");
  const HistoryFlags history = AddHistoryFlags(command, flags);
  command.add_option("--k", flags->k, "How many items (the server's default: 10)")
      ->check(WholeNumber(0, UINT32_MAX));
  CLI::Option* exclude = command.add_option(
      "--exclude", flags->exclude, "Item ids that must not come back, separated by commas");
  CLI::Option* exclude_file = command.add_option("--exclude-file", flags->exclude_file,
                                                 "File with the ids instead, one per line");
  CLI::Option* include_seen =
      command.add_flag("--include-seen", flags->include_seen, "Let items of the history come back");
  command.add_option("--min-score", flags->min_score, "Only items with at least this score");
  CLI::Option* only = command.add_option("--only", flags->only,
                                         "Item ids that alone may come back, separated by commas");
  CLI::Option* only_file = command.add_option("--only-file", flags->only_file,
                                              "File with the ids instead, one per line");
  command
      .add_option("--where", flags->where,
                  "Only items with this: brand=A|B, brand!=A, 'price<=20', in_stock, '!in_stock'; "
                  "several all hold")
      ->take_all()
      ->allow_extra_args(false);
  command.add_option("--filter", flags->filter,
                     "Only items that meet this nestrec.v1.ItemFilter, as JSON");
  command
      .add_option("--most", flags->most,
                  "brand=2: at most two items of each brand; any field will do")
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option("--diversity", flags->relevance,
                  "Trade score for variety: how much the score counts, 0 to 1")
      ->check(CLI::Range(0.0, 1.0));
  CLI::Option* explain =
      command.add_flag("--explain", flags->explain,
                       "Show which items of the history spoke for each item, and how much");
  similar_to->excludes(explain);
  exclude->excludes(exclude_file);
  only->excludes(only_file);
  similar_to->excludes(history.user)
      ->excludes(history.history)
      ->excludes(history.history_file)
      ->excludes(include_seen);
  return {.dim = history.dim, .tier = history.tier, .similar_to = similar_to};
}

}  // namespace nestrec

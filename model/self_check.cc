#include "model/self_check.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/split.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

std::string WhatIsWrong(const Json& entry, int64_t items, size_t sizes) {
  const auto is_list = [&](const char* key) {
    return entry.contains(key) && entry[key].is_array();
  };
  if (!entry.is_object() || !is_list("history") || !is_list("scores") || !is_list("ranks") ||
      !entry.contains("target")) {
    return "an entry without history, target, scores or ranks";
  }
  const auto is_item = [&](const Json& number) {
    return number.is_number_integer() && number.get<int64_t>() >= 1 &&
           number.get<int64_t>() <= items;
  };
  if (!is_item(entry["target"]) ||
      !std::all_of(entry["history"].begin(), entry["history"].end(), is_item)) {
    return absl::StrCat("an item number outside 1 to ", items);
  }
  if (entry["scores"].size() != sizes || entry["ranks"].size() != sizes) {
    return absl::StrCat(entry["scores"].size(), " scores and ", entry["ranks"].size(),
                        " ranks for ", sizes, " sizes");
  }
  if (!std::all_of(entry["scores"].begin(), entry["scores"].end(),
                   [](const Json& score) { return score.is_number(); }) ||
      !std::all_of(entry["ranks"].begin(), entry["ranks"].end(),
                   [](const Json& rank) { return rank.is_number_integer(); })) {
    return "a score or a rank that is no number";
  }
  return "";
}

}  // namespace

absl::StatusOr<std::vector<SelfCheckUser>> MakeSelfCheck(
    const Encoder& encoder, const Dataset& dataset,
    const std::vector<std::vector<int64_t>>& ranks) {
  std::vector<int64_t> evaluated;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    if (IsEvaluated(dataset.sequence(user))) evaluated.push_back(user);
  }
  const size_t count = std::min(evaluated.size(), kMostSelfCheckUsers);
  const ModelView& view = encoder.view();
  const int levels = encoder.sizes().levels();
  std::vector<SelfCheckUser> users;
  std::vector<float> z(static_cast<size_t>(encoder.sizes().max_dim()));
  for (size_t i = 0; i < count; ++i) {
    const size_t place = i * evaluated.size() / count;
    const auto sequence = dataset.sequence(evaluated[place]);
    std::span<const int32_t> history = HistoryOf(sequence, Split::kTest);
    history = history.last(std::min(history.size(), static_cast<size_t>(encoder.max_len())));
    SelfCheckUser user{.history = {history.begin(), history.end()},
                       .target = TargetOf(sequence, Split::kTest),
                       .scores = {},
                       .ranks = {}};
    NESTREC_RETURN_IF_ERROR(encoder.Encode(std::span(&history, 1), levels, z));
    double score = 0;
    for (int level = 0, column = 0; level < levels; ++level) {
      const int width = encoder.sizes().end(level) - column;
      const auto row = view.items[static_cast<size_t>(level)].subspan(
          static_cast<size_t>(user.target) * static_cast<size_t>(width),
          static_cast<size_t>(width));
      for (const float value : row) {
        score += static_cast<double>(value) * static_cast<double>(z[static_cast<size_t>(column++)]);
      }
      user.scores.push_back(static_cast<float>(score));
      user.ranks.push_back(ranks[static_cast<size_t>(level)][place]);
    }
    users.push_back(std::move(user));
  }
  return users;
}

Json SelfCheckToJson(const std::vector<SelfCheckUser>& users) {
  Json json = Json::array();
  for (const SelfCheckUser& user : users) {
    json.push_back({{"history", user.history},
                    {"target", user.target},
                    {"scores", user.scores},
                    {"ranks", user.ranks}});
  }
  return json;
}

absl::StatusOr<std::vector<SelfCheckUser>> SelfCheckFromJson(const Json& json, int64_t items,
                                                             size_t sizes) {
  if (!json.is_array() || json.size() > kMostSelfCheckUsers) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a list of at most ", kMostSelfCheckUsers, " users"));
  }
  std::vector<SelfCheckUser> users;
  for (const Json& entry : json) {
    if (const std::string wrong = WhatIsWrong(entry, items, sizes); !wrong.empty()) {
      return absl::InvalidArgumentError(wrong);
    }
    users.push_back({.history = entry["history"].get<std::vector<int32_t>>(),
                     .target = entry["target"].get<int32_t>(),
                     .scores = entry["scores"].get<std::vector<float>>(),
                     .ranks = entry["ranks"].get<std::vector<int64_t>>()});
  }
  return users;
}

}  // namespace nestrec

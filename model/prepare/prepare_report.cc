#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/prepare/prepare.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

Json OptionsJson(const PrepareOptions& options) {
  constexpr const char* kRepeats[] = {"keep", "first", "last"};
  Json json = {
      {"events", options.events}, {"catalogues", options.catalogues}, {"k_core", options.k_core}};
  json["min_rating"] = options.min_rating.has_value() ? Json(*options.min_rating) : Json(nullptr);
  json["repeats"] = kRepeats[static_cast<int>(options.repeats)];
  json["drop_without_metadata"] = options.drop_without_metadata;
  json["text_fields"] = options.text.fields;
  json["text_width"] = options.text.width;
  json["text_terms"] = options.text.max_terms;
  json["text_min_items"] = options.text.min_items;
  json["seed"] = options.text.seed;
  for (const FeatureFile& file : options.features) json["features"][file.name] = file.path;
  return json;
}

// "  12345  what", left out when it is zero.
void AddCount(std::string& text, int64_t count, absl::string_view what) {
  if (count != 0) absl::StrAppendFormat(&text, "  %10d  %s\n", count, what);
}

}  // namespace

std::string PrepareReport::ToJson(const PrepareOptions& options) const {
  Json json = {
      {"options", OptionsJson(options)},
      {"lines", lines},
      {"bad_lines", bad_lines},
      {"bad_line_messages", bad_line_messages},
      {"below_min_rating", below_min_rating},
      {"duplicates", duplicates},
      {"repeats", repeats},
      {"without_metadata", without_metadata},
      {"outside_core", outside_core},
      {"core_rounds", core_rounds},
      {"events", events},
      {"users_read", users_read},
      {"items_read", items_read},
      {"users", users},
      {"items", items},
      {"sequence_length", {{"shortest", shortest}, {"mean", mean_length}, {"longest", longest}}},
      {"catalogue_rows", catalogue_rows},
      {"catalogue_bad_lines", catalogue_bad_lines},
      {"catalogue_bad_line_messages", catalogue_bad_line_messages},
      {"catalogue_duplicates", catalogue_duplicates},
      {"items_without_record", items_without_record},
  };
  if (text.has_value()) {
    json["text"] = {{"terms", text->terms},
                    {"distinct_terms", text->distinct_terms},
                    {"rank", text->rank},
                    {"explained_variance", text->explained_variance}};
  }
  json["features"] = Json::array();
  for (const Features& modality : features) {
    json["features"].push_back({{"name", modality.name},
                                {"width", modality.width},
                                {"items_without", modality.items_without}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string PrepareReport::ToText() const {
  std::string page = "events\n";
  AddCount(page, lines, "lines read");
  AddCount(page, -bad_lines, "bad lines");
  AddCount(page, -below_min_rating, "below --min-rating, or without a rating");
  AddCount(page, -duplicates, "duplicates (same user, item and time)");
  AddCount(page, -repeats, "repeats (--repeats)");
  AddCount(page, -without_metadata, "of items without metadata");
  AddCount(page, -outside_core, absl::StrCat("outside the k-core (", core_rounds, " rounds)"));
  AddCount(page, events, "kept");
  absl::StrAppendFormat(&page, "users       %d of %d, %d to %d events each, %.1f on average\n",
                        users, users_read, shortest, longest, mean_length);
  absl::StrAppendFormat(&page, "items       %d of %d", items, items_read);
  if (catalogue_rows > 0) {
    absl::StrAppendFormat(&page, "; %d without a catalogue record (%d rows, %d bad, %d duplicates)",
                          items_without_record, catalogue_rows, catalogue_bad_lines,
                          catalogue_duplicates);
  }
  page += "\n";
  for (const Features& modality : features) {
    absl::StrAppendFormat(&page, "features    %s: %d wide, %d items without", modality.name,
                          modality.width, modality.items_without);
    if (text.has_value() && modality.name == "text") {
      absl::StrAppendFormat(&page, "; %d terms of %d, %.0f%% of their variance", text->terms,
                            text->distinct_terms, 100 * text->explained_variance);
      if (text->rank < modality.width) {
        absl::StrAppendFormat(&page, "; the texts fill only %d columns", text->rank);
      }
    }
    page += "\n";
  }
  if (features.empty())
    page += "features    none: training needs some (--catalogue or --features)\n";
  for (const auto& [count, messages] :
       {std::pair(bad_lines, &bad_line_messages),
        std::pair(catalogue_bad_lines, &catalogue_bad_line_messages)}) {
    if (messages->empty()) continue;
    absl::StrAppend(&page, "bad lines\n  ", absl::StrJoin(*messages, "\n  "), "\n");
    const int64_t more = count - static_cast<int64_t>(messages->size());
    if (more > 0) absl::StrAppend(&page, "  ... and ", more, " more\n");
  }
  return page;
}

}  // namespace nestrec

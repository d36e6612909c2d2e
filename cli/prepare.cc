// nestrec prepare: raw event logs and catalogues -> data folder.
#include "model/prepare/prepare.h"

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/flags.h"

namespace nestrec {
namespace {

// What needs a look after parsing.
struct Flags {
  PrepareOptions options;
  std::string columns;
  std::string text_fields = "title,price,brand,categories";
  bool no_text = false;
  bool strict = false;
  std::vector<std::string> features;     // name=path
  std::vector<std::string> feature_ids;  // path, or name=path
  double min_rating = 0;
  int64_t max_bad_lines = 0;
  CLI::Option* min_rating_option = nullptr;
  CLI::Option* max_bad_lines_option = nullptr;
};

absl::Status ReadFeatureFlags(const Flags& flags, PrepareOptions& options) {
  for (const std::string& flag : flags.features) {
    const std::vector<std::string> parts = absl::StrSplit(flag, absl::MaxSplits('=', 1));
    if (parts.size() != 2 || parts[1].empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--features is '", flag, "'; it must be <name>=<path>, for example image=image.npy"));
    }
    options.features.push_back({.name = parts[0], .path = parts[1], .ids_path = {}});
  }
  for (const std::string& flag : flags.feature_ids) {
    const std::vector<std::string> parts = absl::StrSplit(flag, absl::MaxSplits('=', 1));
    bool used = false;
    for (FeatureFile& file : options.features) {
      const bool named = parts.size() == 2 && parts[0] == file.name;
      if (!named && parts.size() == 2) continue;
      file.ids_path = parts.back();
      used = true;
    }
    if (!used) {
      return absl::InvalidArgumentError(
          absl::StrCat("--feature-ids ", flag, " belongs to no --features; it must be ",
                       "<path>, or <name>=<path> with the name of a --features"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PrepareOptions> OptionsFrom(const Flags& flags) {
  PrepareOptions options = flags.options;
  if (!flags.columns.empty()) {
    for (absl::string_view name : absl::StrSplit(flags.columns, ',')) {
      options.event_format.columns.emplace_back(absl::StripAsciiWhitespace(name));
    }
  }
  if (options.event_format.delimiter == "\\t") options.event_format.delimiter = "\t";
  options.text.fields = absl::StrSplit(flags.text_fields, ',', absl::SkipWhitespace());
  options.make_text = !flags.no_text;
  if (flags.min_rating_option->count() > 0) options.min_rating = flags.min_rating;
  if (flags.max_bad_lines_option->count() > 0) options.max_bad_lines = flags.max_bad_lines;
  if (flags.strict) options.max_bad_lines = 0;
  NESTREC_RETURN_IF_ERROR(ReadFeatureFlags(flags, options));
  return options;
}

// Shows each stage on a bar of its own.
class StageBar {
 public:
  void Show(absl::string_view stage, double fraction) {
    if (stage != stage_) bar_.Start(stage_ = std::string(stage), 1000);
    bar_.Update(static_cast<int64_t>(1000 * fraction), "");
  }

 private:
  ProgressBar bar_{stderr};
  std::string stage_;
};

absl::StatusOr<PrepareReport> PrepareWithBar(const PrepareOptions& options) {
  StageBar bar;
  return Prepare(options,
                 [&bar](absl::string_view stage, double fraction) { bar.Show(stage, fraction); });
}

absl::Status Run(const Flags& flags) {
  const absl::StatusOr<PrepareOptions> read = OptionsFrom(flags);
  NESTREC_RETURN_IF_ERROR(UsageError(read.status()));
  const PrepareOptions& options = *read;
  NESTREC_RETURN_IF_ERROR(UsageError(CheckPrepareOptions(options)));
  NESTREC_ASSIGN_OR_RETURN(const PrepareReport report, PrepareWithBar(options));
  std::printf("%s%s is ready; next: nestrec train --data %s\n", report.ToText().c_str(),
              options.out.c_str(), options.out.c_str());
  return absl::OkStatus();
}

void AddInputFlags(CLI::App& command, Flags& flags) {
  EventFormat& format = flags.options.event_format;
  command
      .add_option("--events", flags.options.events, "Event logs: CSV, TSV or JSON lines, also .gz")
      ->required()
      ->type_name("FILE");
  command.add_option("--catalogue", flags.options.catalogues, "Catalogues: JSON lines, also .gz")
      ->type_name("FILE");
  const std::map<std::string, EventFormat::Kind> kinds = {{"auto", EventFormat::Kind::kAuto},
                                                          {"csv", EventFormat::Kind::kDelimited},
                                                          {"jsonl", EventFormat::Kind::kJsonLines}};
  command
      .add_option("--format", format.kind, "Form of the logs: auto, csv or jsonl (default: auto)")
      ->transform(CLI::CheckedTransformer(kinds, CLI::ignore_case).description(""))
      ->type_name("FORM")
      ->group("Input");
  command
      .add_option("--columns", flags.columns,
                  "Column names of logs without a header: user,item,timestamp,rating")
      ->type_name("NAMES")
      ->group("Input");
  command
      .add_option("--delimiter", format.delimiter,
                  "Between columns; default: the usual one that the first line has")
      ->type_name("TEXT")
      ->group("Input");
  command.add_option("--user-field", format.user_field, "Name of the user's column or JSON field")
      ->group("Input");
  command.add_option("--item-field", format.item_field, "Name of the item's")->group("Input");
  command.add_option("--timestamp-field", format.timestamp_field, "Name of the time's")
      ->group("Input");
  command.add_option("--rating-field", format.rating_field, "Name of the rating's")->group("Input");
  command
      .add_flag("--no-timestamps", format.without_timestamps,
                "The logs have no times: their order counts")
      ->group("Input");
  command
      .add_option("--item-id-field", flags.options.catalogue_format.id_field,
                  "Name of the catalogue's item id")
      ->group("Input");
  flags.max_bad_lines_option = command
                                   .add_option("--max-bad-lines", flags.max_bad_lines,
                                               "Stop at more bad lines; default: when most are bad")
                                   ->check(CLI::Range(0, 1'000'000'000))
                                   ->type_name("N")
                                   ->group("Input");
  command.add_flag("--strict", flags.strict, "Stop at the first bad line")->group("Input");
  command
      .add_option("--show-bad-lines", flags.options.bad_lines_shown, "How many bad lines to show")
      ->capture_default_str()
      ->check(CLI::Range(0, 1'000'000))
      ->type_name("N")
      ->group("Input");
}

void AddFilterFlags(CLI::App& command, Flags& flags) {
  command
      .add_option("--k-core", flags.options.k_core,
                  "Every user and item keeps at least that many events; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1'000'000))
      ->type_name("K")
      ->group("What is kept");
  flags.min_rating_option =
      command
          .add_option("--min-rating", flags.min_rating, "Drop events with a lower rating, or none")
          ->type_name("R")
          ->group("What is kept");
  const std::map<std::string, Repeats> repeats = {
      {"keep", Repeats::kKeep}, {"first", Repeats::kFirst}, {"last", Repeats::kLast}};
  command
      .add_option("--repeats", flags.options.repeats,
                  "A user's events with one item: keep all, the first or the last (default: keep)")
      ->transform(CLI::CheckedTransformer(repeats, CLI::ignore_case).description(""))
      ->type_name("WHICH")
      ->group("What is kept");
  command
      .add_flag("--drop-without-metadata", flags.options.drop_without_metadata,
                "Drop items without any of the text fields in the catalogue")
      ->group("What is kept");
}

void AddFeatureFlags(CLI::App& command, Flags& flags) {
  TextEncoder::Options& text = flags.options.text;
  command.add_option("--text-fields", flags.text_fields, "Fields of the text features, in order")
      ->capture_default_str()
      ->type_name("NAMES")
      ->group("Features");
  command.add_option("--text-width", text.width, "Width of the text features")
      ->capture_default_str()
      ->type_name("N")
      ->group("Features");
  command
      .add_option("--text-terms", text.max_terms,
                  "At most that many words and pairs of words are known")
      ->capture_default_str()
      ->type_name("N")
      ->group("Features");
  command.add_option("--text-min-items", text.min_items, "A word must occur in that many items")
      ->capture_default_str()
      ->type_name("N")
      ->group("Features");
  command.add_flag("--no-text", flags.no_text, "Make no text features")->group("Features");
  command.add_option("--seed", text.seed, "Of the random projection")
      ->check(WholeNumber(0, UINT64_MAX))
      ->capture_default_str()
      ->group("Features");
  command
      .add_option("--features", flags.features, "Ready features: <name>=<file.npy>; may come again")
      ->type_name("NAME=FILE")
      ->group("Features");
  command
      .add_option("--feature-ids", flags.feature_ids,
                  "File with the item id of each row: <file>, or <name>=<file>; default: the "
                  "catalogue's order")
      ->type_name("[NAME=]FILE")
      ->group("Features");
}

}  // namespace

void AddPrepareCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("prepare", "Turn event logs and a catalogue into a data folder");
  AddInputFlags(*command, *flags);
  AddFilterFlags(*command, *flags);
  AddFeatureFlags(*command, *flags);
  command->add_option("--out", flags->options.out, "The data folder to write")
      ->required()
      ->type_name("DIR");
  command->add_flag("--overwrite", flags->options.overwrite,
                    "Replace the data in --out if there is some");
  command->callback([flags, selected] { *selected = [flags] { return Run(*flags); }; });
}

}  // namespace nestrec

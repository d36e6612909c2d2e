#include "model/prepare/prepare.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/npy.h"
#include "base/status_macros.h"
#include "model/prepare/bad_lines.h"
#include "model/prepare/core_filter.h"
#include "model/prepare/feature_rows.h"
#include "model/prepare/output_folder.h"
#include "model/user_id.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

constexpr absl::string_view kFeatureFolder = "features";
constexpr absl::string_view kReportFile = "prepare_report.json";
constexpr absl::string_view kEncoderFile = "text.encoder.safetensors";

bool IsModalityName(absl::string_view name) {
  return !name.empty() && name.find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
                              absl::string_view::npos;
}

absl::Status CheckOptions(const PrepareOptions& options) {
  if (options.events.empty())
    return absl::InvalidArgumentError("no event log is given; name one with --events");
  if (options.out.empty())
    return absl::InvalidArgumentError("no output folder is given; name one with --out");
  if (options.k_core < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--k-core is ", options.k_core, "; it must be 0 (keep everything) or more"));
  }
  if (options.drop_without_metadata && options.catalogues.empty()) {
    return absl::InvalidArgumentError(
        "--drop-without-metadata needs a catalogue; name one with --catalogue");
  }
  for (size_t i = 0; i < options.features.size(); ++i) {
    const FeatureFile& file = options.features[i];
    if (!IsModalityName(file.name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the feature name '", file.name,
          "' may have letters, digits, '_' and '-' only, as in --features image=image.npy"));
    }
    for (size_t j = 0; j < i; ++j) {
      if (options.features[j].name == file.name) {
        return absl::InvalidArgumentError(absl::StrCat("there are two --features ", file.name));
      }
    }
    if (file.ids_path.empty() && options.catalogues.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--features ", file.name, "=", file.path,
                       ": which row is which item? Give --feature-ids <file with ",
                       "an item id per line>, or the --catalogue whose lines the rows follow"));
    }
  }
  return TextEncoder::CheckOptions(options.text);
}

// One run, stage by stage.
class Preparation {
 public:
  Preparation(const PrepareOptions& options, const PrepareProgress& progress)
      : options_(options), progress_(progress) {}

  absl::StatusOr<PrepareReport> Run() {
    NESTREC_RETURN_IF_ERROR(CheckOptions(options_));
    NESTREC_ASSIGN_OR_RETURN(OutputFolder folder,
                             OutputFolder::Open(options_.out, options_.overwrite));
    NESTREC_RETURN_IF_ERROR(ReadLogs());
    NESTREC_RETURN_IF_ERROR(ReadCatalogues());
    NESTREC_RETURN_IF_ERROR(FilterEvents());
    NumberItems();
    NESTREC_RETURN_IF_ERROR(CheckWhatIsLeft());
    NESTREC_RETURN_IF_ERROR(MakeFeatures());
    NESTREC_RETURN_IF_ERROR(WriteFolder(folder));
    folder.Keep();
    return std::move(report_);
  }

 private:
  absl::Status ReadLogs();
  absl::Status AddEvent(const RawEvent& raw);
  absl::Status ReadCatalogues();
  bool HasMetadata(int32_t item) const;
  absl::Status FilterEvents();
  void NumberItems();
  absl::Status CheckWhatIsLeft() const;
  bool MakesText() const;
  absl::Status MakeFeatures();
  absl::Status MakeTextFeatures();
  absl::Status TakeFeatures(const FeatureFile& file);
  void AddFeatures(const std::string& name, Matrix matrix);
  absl::Status WriteFolder(const OutputFolder& folder);
  absl::Status WriteInteractions() const;
  absl::Status WriteItems() const;
  std::string ItemLine(int32_t item) const;
  std::string Path(absl::string_view name) const { return absl::StrCat(options_.out, "/", name); }
  std::string FeaturePath(absl::string_view name) const {
    return absl::StrCat(Path(kFeatureFolder), "/", name);
  }

  const PrepareOptions& options_;
  const PrepareProgress& progress_;
  PrepareReport report_;
  IdTable users_;
  IdTable items_;
  std::vector<Event> events_;
  // By raw item number, that is, by first appearance in the logs.
  std::vector<std::string> records_;    // the line of items.jsonl; empty: the catalogue has none
  std::vector<int64_t> catalogue_row_;  // -1: none
  std::vector<int32_t> number_of_;      // in the data folder, from 1; 0: dropped
  std::vector<int32_t> kept_items_;     // raw numbers, in the order of the data folder
  std::vector<std::pair<std::string, Matrix>> features_;
  std::optional<TextEncoder> text_encoder_;
};

absl::Status Preparation::AddEvent(const RawEvent& raw) {
  if (options_.min_rating.has_value() &&
      !(raw.rating.has_value() && *raw.rating >= *options_.min_rating)) {
    ++report_.below_min_rating;
    return absl::OkStatus();
  }
  if (std::max(users_.size(), items_.size()) >= std::numeric_limits<int32_t>::max() - 1) {
    return absl::ResourceExhaustedError("the logs have more users or items than 2^31");
  }
  events_.push_back({.user = users_.Add(raw.user), .item = items_.Add(raw.item), .time = raw.time});
  return absl::OkStatus();
}

absl::Status Preparation::ReadLogs() {
  EventFormat format = options_.event_format;
  format.with_ratings = options_.min_rating.has_value();
  BadLines bad_lines(options_.bad_lines_shown, options_.max_bad_lines);
  for (const std::string& path : options_.events) {
    const std::string stage =
        absl::StrCat("reading ", std::filesystem::path(path).filename().string());
    NESTREC_ASSIGN_OR_RETURN(
        const int64_t lines,
        ReadEvents(
            path, format, bad_lines, [&](double part) { progress_(stage, part); },
            [this](const RawEvent& event) { return AddEvent(event); }));
    report_.lines += lines;
  }
  report_.bad_lines = bad_lines.count();
  report_.bad_line_messages = bad_lines.messages();
  report_.users_read = users_.size();
  report_.items_read = items_.size();
  if (report_.lines == 0) {
    return absl::FailedPreconditionError(absl::StrCat(options_.events.front(), " has no events"));
  }
  if (!options_.max_bad_lines.has_value() && report_.bad_lines * 2 > report_.lines) {
    return absl::InvalidArgumentError(
        absl::StrCat(report_.bad_lines, " of ", report_.lines,
                     " lines of the logs cannot be used, so the format is probably another ",
                     "one than these flags say (--format, --delimiter, --columns); --max-bad-lines "
                     "N allows N:\n",
                     bad_lines.ToString()));
  }
  if (events_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no event has a rating of ", *options_.min_rating, " or more; lower --min-rating"));
  }
  return absl::OkStatus();
}

absl::Status Preparation::ReadCatalogues() {
  records_.resize(static_cast<size_t>(items_.size()));
  catalogue_row_.assign(static_cast<size_t>(items_.size()), -1);
  BadLines bad_lines(options_.bad_lines_shown, options_.max_bad_lines);
  for (const std::string& path : options_.catalogues) {
    const std::string stage =
        absl::StrCat("reading ", std::filesystem::path(path).filename().string());
    const int64_t first_row = report_.catalogue_rows;
    const auto take = [&](int64_t row, absl::string_view id,
                          const nlohmann::ordered_json& record) -> absl::Status {
      const int32_t item = items_.Find(id);
      if (item < 0) return absl::OkStatus();
      const size_t i = static_cast<size_t>(item);
      if (catalogue_row_[i] >= 0) {
        ++report_.catalogue_duplicates;
        return absl::OkStatus();
      }
      catalogue_row_[i] = first_row + row;
      records_[i] = RecordLine(id, record);
      return absl::OkStatus();
    };
    NESTREC_ASSIGN_OR_RETURN(const int64_t rows,
                             ReadCatalogue(
                                 path, options_.catalogue_format, bad_lines,
                                 [&](double part) { progress_(stage, part); }, take));
    report_.catalogue_rows += rows;
  }
  report_.catalogue_bad_lines = bad_lines.count();
  report_.catalogue_bad_line_messages = bad_lines.messages();
  if (!options_.max_bad_lines.has_value() &&
      report_.catalogue_bad_lines * 2 > report_.catalogue_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat(report_.catalogue_bad_lines, " of ", report_.catalogue_rows,
                     " lines of the catalogue cannot be used; it must have a JSON object ",
                     "per line (--item-id-field names the id):\n", bad_lines.ToString()));
  }
  const bool matched = std::any_of(catalogue_row_.begin(), catalogue_row_.end(),
                                   [](int64_t row) { return row >= 0; });
  if (!options_.catalogues.empty() && !matched) {
    return absl::FailedPreconditionError(
        absl::StrCat("none of the ", items_.size(), " items of the logs (such as '", items_.id(0),
                     "') is among the ", report_.catalogue_rows, " records of ",
                     options_.catalogues.front(), "; does --item-id-field name the right field?"));
  }
  return absl::OkStatus();
}

bool Preparation::HasMetadata(int32_t item) const {
  const std::string& record = records_[static_cast<size_t>(item)];
  return !record.empty() && !ItemText(record, options_.text.fields).empty();
}

absl::Status Preparation::FilterEvents() {
  progress_("filtering", 0);
  SortByUserAndTime(events_);
  if (!options_.event_format.without_timestamps) report_.duplicates = DropDuplicates(events_);
  report_.repeats = DropRepeats(events_, options_.repeats);
  if (options_.drop_without_metadata) {
    std::vector<bool> has(static_cast<size_t>(items_.size()));
    for (int32_t item = 0; item < items_.size(); ++item)
      has[static_cast<size_t>(item)] = HasMetadata(item);
    report_.without_metadata = static_cast<int64_t>(std::erase_if(
        events_, [&has](const Event& event) { return !has[static_cast<size_t>(event.item)]; }));
  }
  const size_t before = events_.size();
  report_.core_rounds = KeepCore(events_, users_.size(), items_.size(), options_.k_core);
  report_.outside_core = static_cast<int64_t>(before - events_.size());
  progress_("filtering", 1);
  if (before == 0) {
    return absl::FailedPreconditionError(
        "no item of the logs has metadata; leave out --drop-without-metadata");
  }
  if (events_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "nothing is left: no part of the ", before, " events has at least ", options_.k_core,
        " for each of its users and items; lower the limit, for example --k-core ",
        options_.k_core > 2 ? 2 : 1));
  }
  return absl::OkStatus();
}

void Preparation::NumberItems() {
  number_of_.assign(static_cast<size_t>(items_.size()), 0);
  report_.shortest = std::numeric_limits<int64_t>::max();
  int64_t length = 0;
  for (size_t i = 0; i < events_.size(); ++i) {
    int32_t& number = number_of_[static_cast<size_t>(events_[i].item)];
    if (number == 0) {
      kept_items_.push_back(events_[i].item);
      number = static_cast<int32_t>(kept_items_.size());
    }
    ++length;
    if (i + 1 < events_.size() && events_[i + 1].user == events_[i].user) continue;
    ++report_.users;
    report_.shortest = std::min(report_.shortest, length);
    report_.longest = std::max(report_.longest, length);
    length = 0;
  }
  report_.events = static_cast<int64_t>(events_.size());
  report_.items = static_cast<int64_t>(kept_items_.size());
  report_.mean_length = static_cast<double>(report_.events) / static_cast<double>(report_.users);
  for (const int32_t item : kept_items_)
    report_.items_without_record += records_[static_cast<size_t>(item)].empty();
}

absl::Status Preparation::CheckWhatIsLeft() const {
  if (report_.items < 2) {
    return absl::FailedPreconditionError(absl::StrCat(
        "only the item '", items_.id(kept_items_.front()),
        "' is left; there is nothing to choose from. Use more ",
        "events, or lower the limit, for example --k-core ", options_.k_core > 2 ? 2 : 1));
  }
  return absl::OkStatus();
}

bool Preparation::MakesText() const {
  const bool given = std::any_of(options_.features.begin(), options_.features.end(),
                                 [](const FeatureFile& file) { return file.name == "text"; });
  return options_.make_text && !options_.catalogues.empty() && !given;
}

absl::Status Preparation::MakeFeatures() {
  if (MakesText()) NESTREC_RETURN_IF_ERROR(MakeTextFeatures());
  for (const FeatureFile& file : options_.features) NESTREC_RETURN_IF_ERROR(TakeFeatures(file));
  return absl::OkStatus();
}

absl::Status Preparation::MakeTextFeatures() {
  progress_("making text features", 0);
  std::vector<std::string> texts;
  for (const int32_t item : kept_items_)
    texts.push_back(ItemText(ItemLine(item), options_.text.fields));
  NESTREC_ASSIGN_OR_RETURN(TextEncoder::Fitted fitted, TextEncoder::Fit(texts, options_.text));
  Matrix matrix{.rows = report_.items, .columns = fitted.encoder.width()};
  matrix.values.resize(static_cast<size_t>(matrix.rows * matrix.columns));
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const std::vector<float> values = fitted.encoder.Encode(texts[static_cast<size_t>(row)]);
    std::copy(values.begin(), values.end(), matrix.row(row).begin());
  }
  report_.text = fitted.report;
  text_encoder_ = std::move(fitted.encoder);
  AddFeatures("text", std::move(matrix));
  progress_("making text features", 1);
  return absl::OkStatus();
}

absl::Status Preparation::TakeFeatures(const FeatureFile& file) {
  const std::string stage =
      absl::StrCat("reading ", std::filesystem::path(file.path).filename().string());
  progress_(stage, 0);
  NESTREC_ASSIGN_OR_RETURN(const Matrix matrix, ReadNpy(file.path));
  std::vector<int64_t> rows;
  int64_t expected = report_.catalogue_rows;
  if (file.ids_path.empty()) {
    for (const int32_t item : kept_items_)
      rows.push_back(catalogue_row_[static_cast<size_t>(item)]);
  } else {
    NESTREC_ASSIGN_OR_RETURN(const RowOfId row_of, ReadFeatureIds(file.ids_path));
    expected = static_cast<int64_t>(row_of.size());
    for (const int32_t item : kept_items_) {
      const auto found = row_of.find(items_.id(item));
      rows.push_back(found == row_of.end() ? -1 : found->second);
    }
  }
  if (matrix.rows != expected || matrix.columns == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path, " is ", matrix.rows, " x ", matrix.columns, ", but ",
        file.ids_path.empty() ? "the catalogue" : file.ids_path, " has ", expected,
        file.ids_path.empty()
            ? " lines; without --feature-ids, row r-1 belongs to the catalogue's line r"
            : " item ids"));
  }
  if (std::all_of(rows.begin(), rows.end(), [](int64_t row) { return row < 0; })) {
    return absl::FailedPreconditionError(
        absl::StrCat("no row of ", file.path, " belongs to an item of the logs (such as '",
                     items_.id(kept_items_.front()), "'); are the ids the same ones?"));
  }
  AddFeatures(file.name, SelectRows(matrix, rows));
  progress_(stage, 1);
  return absl::OkStatus();
}

void Preparation::AddFeatures(const std::string& name, Matrix matrix) {
  PrepareReport::Features features{.name = name, .width = matrix.columns};
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const std::span<const float> values = std::as_const(matrix).row(row);
    features.items_without +=
        std::all_of(values.begin(), values.end(), [](float value) { return value == 0; });
  }
  report_.features.push_back(std::move(features));
  features_.emplace_back(name, std::move(matrix));
}

absl::Status Preparation::WriteFolder(const OutputFolder& folder) {
  progress_("writing", 0);
  NESTREC_RETURN_IF_ERROR(folder.RemoveOldData());
  NESTREC_RETURN_IF_ERROR(WriteItems());
  if (!features_.empty()) NESTREC_RETURN_IF_ERROR(MakeDirectories(Path(kFeatureFolder)));
  for (const auto& [name, matrix] : features_) {
    NESTREC_RETURN_IF_ERROR(WriteNpy(FeaturePath(name + ".npy"), matrix));
  }
  if (text_encoder_.has_value())
    NESTREC_RETURN_IF_ERROR(text_encoder_->Save(FeaturePath(kEncoderFile)));
  NESTREC_RETURN_IF_ERROR(WriteInteractions());
  // Last, so that a folder with a report is complete.
  NESTREC_RETURN_IF_ERROR(WriteFileAtomically(Path(kReportFile), report_.ToJson(options_)));
  progress_("writing", 1);
  return absl::OkStatus();
}

std::string Preparation::ItemLine(int32_t item) const {
  const std::string& record = records_[static_cast<size_t>(item)];
  return record.empty() ? RecordLine(items_.id(item), nlohmann::ordered_json::object()) : record;
}

absl::Status Preparation::WriteItems() const {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> file,
                           AtomicFileWriter::Create(Path("items.jsonl")));
  for (const int32_t item : kept_items_)
    NESTREC_RETURN_IF_ERROR(file->Write(absl::StrCat(ItemLine(item), "\n")));
  return file->Commit();
}

absl::Status Preparation::WriteInteractions() const {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> file,
                           AtomicFileWriter::Create(Path("interactions.txt")));
  std::string line;
  for (size_t i = 0; i < events_.size(); ++i) {
    if (line.empty()) line = EncodeUserId(users_.id(events_[i].user));
    absl::StrAppend(&line, " ", number_of_[static_cast<size_t>(events_[i].item)]);
    if (i + 1 < events_.size() && events_[i + 1].user == events_[i].user) continue;
    line.push_back('\n');
    NESTREC_RETURN_IF_ERROR(file->Write(line));
    line.clear();
  }
  return file->Commit();
}

}  // namespace

absl::Status CheckPrepareOptions(const PrepareOptions& options) { return CheckOptions(options); }

absl::StatusOr<PrepareReport> Prepare(const PrepareOptions& options,
                                      const PrepareProgress& progress) {
  return Preparation(options, progress).Run();
}

}  // namespace nestrec

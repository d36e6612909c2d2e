// Turns raw event logs and catalogues into a data folder (docs/data.md; model/dataset.h reads it):
//
//   read events -> drop low ratings, duplicates, items without metadata -> k-core -> number users
//   and items -> interactions.txt, items.jsonl, features/*.npy, features/text.encoder.safetensors,
//   prepare_report.json
//
// Users are numbered in the order in which they first come in the logs; items in the order in which
// they first come in interactions.txt. The same input and options give the same interactions.txt
// and items.jsonl byte for byte.
//
// Memory: 24 bytes an event, the ids, the catalogue records of the items that occur in the logs,
// and, while features are made, their matrix. Thread safety: one run writes one folder; runs on
// different folders are independent.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prepare/catalogue_reader.h"
#include "model/prepare/event_log.h"
#include "model/prepare/event_reader.h"
#include "model/prepare/text_encoder.h"

namespace nestrec {

// Features that somebody made already.
struct FeatureFile {
  std::string name;      // the modality
  std::string path;      // .npy
  std::string ids_path;  // which row is which item; empty: rows follow the raw catalogue's lines
};

struct PrepareOptions {
  std::vector<std::string> events;  // at least one file
  EventFormat event_format;
  std::vector<std::string> catalogues;  // may be none
  CatalogueFormat catalogue_format;
  std::string out;
  bool overwrite = false;  // replace the data in a folder that is not empty; other files in it stay

  // What is kept.
  int64_t k_core = 5;
  std::optional<double> min_rating;
  Repeats repeats = Repeats::kKeep;
  bool drop_without_metadata =
      false;  // items with no catalogue record, or one without any of the text fields

  // Features.
  bool make_text = true;  // from the catalogue, unless `features` has a "text"
  TextEncoder::Options text;
  std::vector<FeatureFile> features;

  // Bad lines.
  int64_t bad_lines_shown = 10;
  std::optional<int64_t> max_bad_lines;  // nothing: as long as most lines are good
};

struct PrepareReport {
  struct Features {
    std::string name;
    int64_t width = 0;
    int64_t items_without = 0;  // zero rows
  };

  // Events, in the order in which they were dropped.
  int64_t lines = 0;  // of the logs, bad ones too
  int64_t bad_lines = 0;
  std::vector<std::string> bad_line_messages;
  int64_t below_min_rating = 0;  // or without a rating
  int64_t duplicates = 0;        // same user, item and time
  int64_t repeats = 0;           // by PrepareOptions::repeats
  int64_t without_metadata = 0;
  int64_t outside_core = 0;
  int64_t core_rounds = 0;
  int64_t events = 0;  // kept

  int64_t users_read = 0;
  int64_t items_read = 0;
  int64_t users = 0;
  int64_t items = 0;
  int64_t shortest = 0;  // sequence
  double mean_length = 0;
  int64_t longest = 0;

  int64_t catalogue_rows = 0;
  int64_t catalogue_bad_lines = 0;
  std::vector<std::string> catalogue_bad_line_messages;
  int64_t catalogue_duplicates = 0;  // records of an id that had one already: the first counts
  int64_t items_without_record = 0;  // of those kept

  std::optional<TextEncoder::FitReport> text;
  std::vector<Features> features;

  // A JSON object; with the options that made it.
  std::string ToJson(const PrepareOptions& options) const;
  // A page for people.
  std::string ToText() const;
};

// `progress` is told the stage and the part of it that is done, 0 to 1.
using PrepareProgress = std::function<void(absl::string_view stage, double fraction)>;

// kInvalidArgument, naming the flag, for options outside their limits or that do not go together;
// Prepare checks them first.
absl::Status CheckPrepareOptions(const PrepareOptions& options);

// kInvalidArgument for bad options or input (file and line named); kAlreadyExists for an output
// folder that is not empty; kFailedPrecondition when nothing, or a single item, is left, with the
// cure; errors of base/file.h.
// Without success an output folder that was not there, or empty, is so again.
absl::StatusOr<PrepareReport> Prepare(const PrepareOptions& options,
                                      const PrepareProgress& progress);

}  // namespace nestrec

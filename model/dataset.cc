#include "model/dataset.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "model/user_id.h"
#include "nlohmann/json.hpp"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace nestrec {
namespace {

constexpr absl::string_view kSpaces = " \t";

// The lines of a text: no byte-order mark, no "\r" at line ends, no empty lines at the end of the
// file.
class Lines {
 public:
  explicit Lines(absl::string_view text) : rest_(text) {
    if (rest_.substr(0, 3) == "\xef\xbb\xbf") rest_.remove_prefix(3);
    const size_t last = rest_.find_last_not_of(" \t\r\n");
    rest_ = rest_.substr(0, last == absl::string_view::npos ? 0 : last + 1);
  }

  std::optional<absl::string_view> Next() {
    if (rest_.empty()) return std::nullopt;
    ++number_;
    const size_t end = rest_.find('\n');
    absl::string_view line = rest_.substr(0, end);
    rest_ = end == absl::string_view::npos ? absl::string_view() : rest_.substr(end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return line;
  }
  int64_t number() const { return number_; }

 private:
  absl::string_view rest_;
  int64_t number_ = 0;
};

absl::string_view NextWord(absl::string_view& rest) {
  const size_t begin = rest.find_first_not_of(kSpaces);
  if (begin == absl::string_view::npos) {
    rest = {};
    return {};
  }
  const size_t end = std::min(rest.find_first_of(kSpaces, begin), rest.size());
  const absl::string_view word = rest.substr(begin, end - begin);
  rest.remove_prefix(end);
  return word;
}

// A word as it may stand in a message.
std::string Quoted(absl::string_view word) {
  constexpr size_t kLongest = 60;
  return absl::StrCat("'", Printable(word.substr(0, kLongest)),
                      word.size() <= kLongest ? "'" : "...'");
}

// The item's external id: `item_id`, or `asin`, a string or an integer.
absl::StatusOr<std::string> ItemId(const nlohmann::json& record, const std::string& place) {
  for (const char* name : {"item_id", "asin"}) {
    const auto field = record.find(name);
    if (field == record.end() || field->is_null()) continue;
    if (field->is_number_integer()) return field->dump();
    if (!field->is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": ", name, " must be a string or an integer"));
    }
    const std::string& id = field->get_ref<const std::string&>();
    if (id.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": ", name, " is empty; every item needs an id"));
    }
    return id;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      place, ": the item has no id; add a field item_id (or asin) with its external id"));
}

absl::Status CheckItemNumber(const nlohmann::json& record, int64_t line, const std::string& place) {
  const auto number = record.find("id");
  if (number == record.end() || !number->is_number()) return absl::OkStatus();
  if (number->is_number_integer() && number->get<int64_t>() == line) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      place, ": id is ", number->dump(), ", but line r describes item r, so it must be ", line,
      "; sort the file by id, or rename the field if it means something else"));
}

absl::StatusOr<std::shared_ptr<const Catalogue>> LoadCatalogue(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Lines lines(text);
  std::vector<std::string> ids;
  std::vector<std::string> records;
  absl::flat_hash_map<std::string, int64_t> line_of;
  while (const auto line = lines.Next()) {
    const std::string place = absl::StrCat(path, ":", lines.number());
    const size_t begin = line->find_first_not_of(kSpaces);
    if (begin == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": the line is empty; line r describes item r, so remove it"));
    }
    const absl::string_view trimmed =
        line->substr(begin, line->find_last_not_of(kSpaces) + 1 - begin);
    const nlohmann::json record =
        nlohmann::json::parse(trimmed.begin(), trimmed.end(), nullptr, false);
    if (!record.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(
          place, ": ", record.is_discarded() ? "not valid JSON" : "not a JSON object",
          "; every line is one object such as {\"item_id\": \"B01\", \"title\": \"Soap\"}"));
    }
    NESTREC_RETURN_IF_ERROR(CheckItemNumber(record, lines.number(), place));
    NESTREC_ASSIGN_OR_RETURN(std::string id, ItemId(record, place));
    const auto [found, inserted] = line_of.try_emplace(id, lines.number());
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": the id ", Quoted(id),
                                                     " is already that of line ", found->second,
                                                     "; ids must differ"));
    }
    ids.push_back(std::move(id));
    records.emplace_back(trimmed);
  }
  if (ids.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " describes no items"));
  }
  NESTREC_ASSIGN_OR_RETURN(Catalogue catalogue, Catalogue::Create(ids, records));
  return std::make_shared<const Catalogue>(std::move(catalogue));
}

// Appends one user's line to the data set.
absl::Status ParseUser(absl::string_view line, int64_t items, const std::string& place,
                       Dataset& data) {
  absl::string_view rest = line;
  const absl::string_view user = NextWord(rest);
  const size_t before = data.interactions.size();
  for (absl::string_view word = NextWord(rest); !word.empty(); word = NextWord(rest)) {
    int64_t item = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), item);
    const bool whole = end == word.data() + word.size();
    if (whole && error == std::errc() && item >= 1 && item <= items) {
      data.interactions.push_back(static_cast<int32_t>(item));
      continue;
    }
    if (whole && (error == std::errc() || error == std::errc::result_out_of_range)) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": item number ", word.substr(0, 30),
                                                     " of user ", Quoted(user), " is outside 1..",
                                                     items, ", the items of items.jsonl"));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": ", Quoted(word),
                     " is not an item number; a line is a user id, then item numbers, ",
                     "separated by spaces (a space inside a user id is written %20)"));
  }
  if (data.interactions.size() == before) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": user ", Quoted(user), " has no items; remove the line"));
  }
  data.user_ids.push_back(DecodeUserId(user));
  data.offsets.push_back(static_cast<int64_t>(data.interactions.size()));
  return absl::OkStatus();
}

absl::Status CheckUsersDiffer(const std::string& path, const std::vector<std::string>& user_ids,
                              const std::vector<int64_t>& user_lines) {
  absl::flat_hash_map<absl::string_view, size_t> user_of;
  user_of.reserve(user_ids.size());
  for (size_t u = 0; u < user_ids.size(); ++u) {
    const auto [found, inserted] = user_of.try_emplace(user_ids[u], u);
    if (!inserted) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", user_lines[u], ": user ", Quoted(user_ids[u]),
                       " is already on line ", user_lines[found->second], "; a user has one line"));
    }
  }
  return absl::OkStatus();
}

absl::Status LoadInteractions(const std::string& path, Dataset& data) {
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Lines lines(text);
  std::vector<int64_t> user_lines;
  data.offsets.push_back(0);
  while (const auto line = lines.Next()) {
    if (line->find_first_not_of(kSpaces) == absl::string_view::npos) continue;
    NESTREC_RETURN_IF_ERROR(
        ParseUser(*line, data.items(), absl::StrCat(path, ":", lines.number()), data));
    user_lines.push_back(lines.number());
  }
  if (data.user_ids.empty())
    return absl::FailedPreconditionError(absl::StrCat(path, " has no users"));
  return CheckUsersDiffer(path, data.user_ids, user_lines);
}

// The folder's modalities: "text" first, then "image", then the others by name.
absl::StatusOr<std::vector<std::string>> FindModalities(const std::string& features) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = std::filesystem::directory_iterator(features, error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".npy") names.push_back(entry->path().stem().string());
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), "cannot list", features);
  }
  const auto rank = [](const std::string& name) {
    return name == "text" ? 0 : name == "image" ? 1 : 2;
  };
  std::sort(names.begin(), names.end(), [&rank](const std::string& a, const std::string& b) {
    return rank(a) != rank(b) ? rank(a) < rank(b) : a < b;
  });
  return names;
}

absl::Status LoadFeatures(const std::vector<std::string>& asked, Dataset& data) {
  if (asked == std::vector<std::string>{Dataset::kNoFeatures}) return absl::OkStatus();
  const std::string features = absl::StrCat(data.folder, "/features");
  NESTREC_ASSIGN_OR_RETURN(const std::vector<std::string> present, FindModalities(features));
  if (present.empty() && asked.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no features in ", features,
                     ": run `nestrec prepare` with a catalogue, or put there an array ",
                     "float32 [items, width] such as text.npy"));
  }
  const std::vector<std::string>& names = asked.empty() ? present : asked;
  for (size_t i = 0; i < names.size(); ++i) {
    if (std::find(present.begin(), present.end(), names[i]) == present.end()) {
      return absl::NotFoundError(
          absl::StrCat("no modality '", names[i], "' in ", features, "; it has ",
                       present.empty() ? "none" : absl::StrJoin(present, ", ")));
    }
    if (std::find(names.begin(), names.begin() + static_cast<ptrdiff_t>(i), names[i]) !=
        names.begin() + static_cast<ptrdiff_t>(i)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the modality '", names[i], "' is asked for twice"));
    }
  }
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(features, "/", name, ".npy");
    NESTREC_ASSIGN_OR_RETURN(Matrix matrix, ReadNpy(path));
    if (matrix.rows != data.items()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has ", matrix.rows, " rows, but items.jsonl describes ",
                       data.items(), " items; row r-1 must belong to item r"));
    }
    if (matrix.columns == 0)
      return absl::InvalidArgumentError(absl::StrCat(path, " has no columns"));
    data.modalities.push_back({.name = name, .features = std::move(matrix)});
  }
  return absl::OkStatus();
}

std::string Fingerprint(const Dataset& data) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  const auto add = [&state](const void* bytes, size_t size) {
    XXH3_64bits_update(&state, bytes, size);
  };
  add(data.offsets.data(), data.offsets.size() * sizeof(int64_t));
  add(data.interactions.data(), data.interactions.size() * sizeof(int32_t));
  add(data.catalogue->id_offsets().data(), data.catalogue->id_offsets().size() * sizeof(int64_t));
  add(data.catalogue->ids_text().data(), data.catalogue->ids_text().size());
  return absl::StrFormat("%016x", XXH3_64bits_digest(&state));
}

}  // namespace

std::string FeaturesFingerprint(const Matrix& features) {
  const int64_t columns = features.columns;
  return absl::StrFormat(
      "%016x", XXH3_64bits_withSeed(features.values.data(), features.values.size() * sizeof(float),
                                    static_cast<uint64_t>(columns)));
}

absl::StatusOr<std::shared_ptr<const Dataset>> Dataset::Load(const std::string& folder,
                                                             const Options& options) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat(
        "no data folder ", folder, "; make one with `nestrec prepare --out ", folder, "`"));
  }
  auto data = std::make_shared<Dataset>();
  data->folder = folder;
  NESTREC_ASSIGN_OR_RETURN(data->catalogue, LoadCatalogue(absl::StrCat(folder, "/items.jsonl")));
  NESTREC_RETURN_IF_ERROR(LoadInteractions(absl::StrCat(folder, "/interactions.txt"), *data));
  if (options.load_features) NESTREC_RETURN_IF_ERROR(LoadFeatures(options.modalities, *data));
  data->fingerprint = Fingerprint(*data);
  return std::shared_ptr<const Dataset>(std::move(data));
}

}  // namespace nestrec

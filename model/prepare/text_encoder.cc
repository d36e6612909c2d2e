#include "model/prepare/text_encoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/item_record.h"
#include "model/prepare/randomised_svd.h"
#include "model/prepare/text_tokenizer.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

// The distinct terms of a text with how often each occurs, by hash.
std::vector<std::pair<int64_t, int64_t>> CountTerms(absl::string_view text) {
  std::vector<uint64_t> hashes = TermHashes(text);
  std::vector<int64_t> terms(hashes.begin(), hashes.end());
  std::sort(terms.begin(), terms.end());
  std::vector<std::pair<int64_t, int64_t>> counts;
  for (const int64_t term : terms) {
    if (counts.empty() || counts.back().first != term) counts.emplace_back(term, 0);
    ++counts.back().second;
  }
  return counts;
}

struct Vocabulary {
  std::vector<int64_t> terms;  // rising
  std::vector<float> idf;
  int64_t distinct_terms = 0;
};

Vocabulary ChooseTerms(std::span<const std::string> texts, const TextEncoder::Options& options) {
  absl::flat_hash_map<int64_t, int64_t> items_with;
  for (const std::string& text : texts) {
    for (const auto& [term, count] : CountTerms(text)) ++items_with[term];
  }
  std::vector<std::pair<int64_t, int64_t>> chosen;
  for (const auto& [term, items] : items_with) {
    if (items >= options.min_items) chosen.emplace_back(term, items);
  }
  // The most frequent; of equally frequent ones those with the smaller hash, so that the choice is
  // no accident.
  std::sort(chosen.begin(), chosen.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  if (static_cast<int64_t>(chosen.size()) > options.max_terms)
    chosen.resize(static_cast<size_t>(options.max_terms));
  std::sort(chosen.begin(), chosen.end());
  Vocabulary vocabulary;
  vocabulary.distinct_terms = static_cast<int64_t>(items_with.size());
  const double items = static_cast<double>(texts.size());
  for (const auto& [term, count] : chosen) {
    vocabulary.terms.push_back(term);
    vocabulary.idf.push_back(
        static_cast<float>(std::log((1 + items) / (1 + static_cast<double>(count))) + 1));
  }
  return vocabulary;
}

double SumOfSquares(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return sum;
}

}  // namespace

std::string ItemText(absl::string_view record, std::span<const std::string> fields) {
  std::string text;
  for (std::string& value : RecordFields(record, fields)) {
    if (value.empty()) continue;
    std::replace(value.begin(), value.end(), '\n', ' ');
    if (!text.empty()) text.push_back('\n');
    text.append(value);
  }
  return text;
}

absl::Status TextEncoder::CheckOptions(const Options& options) {
  const auto check = [](absl::string_view name, int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high
               ? absl::OkStatus()
               : absl::InvalidArgumentError(
                     absl::StrCat(name, ": ", value, " is outside ", low, " to ", high));
  };
  NESTREC_RETURN_IF_ERROR(check("--text-width", options.width, 1, 4096));
  NESTREC_RETURN_IF_ERROR(check("--text-terms", options.max_terms, 1, int64_t{1} << 24));
  NESTREC_RETURN_IF_ERROR(check("--text-min-items", options.min_items, 1, int64_t{1} << 31));
  return check("power iterations", options.power_iterations, 0, 100);
}

absl::StatusOr<TextEncoder::Fitted> TextEncoder::Fit(std::span<const std::string> texts,
                                                     const Options& options) {
  NESTREC_RETURN_IF_ERROR(CheckOptions(options));
  Vocabulary vocabulary = ChooseTerms(texts, options);
  if (vocabulary.terms.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no word occurs in the texts of ", options.min_items, " items (", texts.size(), " items, ",
        vocabulary.distinct_terms,
        " different words and pairs), so there is nothing to make text features of; check ",
        "--text-fields, lower --text-min-items, or leave text out with --no-text"));
  }
  TextEncoder encoder;
  encoder.fields_ = options.fields;
  encoder.width_ = options.width;
  encoder.items_ = static_cast<int64_t>(texts.size());
  encoder.terms_ = std::move(vocabulary.terms);
  encoder.idf_ = std::move(vocabulary.idf);
  SparseMatrix matrix{.rows = encoder.items_, .columns = encoder.terms()};
  for (const std::string& text : texts) {
    for (const WeightedTerm& term : encoder.Weigh(text)) {
      matrix.column.push_back(static_cast<int32_t>(term.term));
      matrix.value.push_back(term.weight);
    }
    matrix.row_begin.push_back(static_cast<int64_t>(matrix.column.size()));
  }
  NESTREC_ASSIGN_OR_RETURN(
      RightSingularVectors svd,
      RandomisedSvd(matrix, options.width, options.power_iterations, options.seed));
  encoder.projection_ = std::move(svd.vectors);
  const FitReport report{
      .terms = encoder.terms(),
      .distinct_terms = vocabulary.distinct_terms,
      .rank = svd.rank,
      .explained_variance = SumOfSquares(svd.values) / SumOfSquares(matrix.value)};
  return Fitted{.encoder = std::move(encoder), .report = report};
}

std::vector<TextEncoder::WeightedTerm> TextEncoder::Weigh(absl::string_view text) const {
  std::vector<WeightedTerm> weighted;
  double squares = 0;
  for (const auto& [term, count] : CountTerms(text)) {
    const auto found = std::lower_bound(terms_.begin(), terms_.end(), term);
    if (found == terms_.end() || *found != term) continue;
    const int64_t row = found - terms_.begin();
    const double weight =
        (1 + std::log(static_cast<double>(count))) * idf_[static_cast<size_t>(row)];
    weighted.push_back({.term = row, .weight = static_cast<float>(weight)});
    squares += weight * weight;
  }
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  for (WeightedTerm& term : weighted) term.weight = static_cast<float>(term.weight * scale);
  return weighted;
}

std::vector<float> TextEncoder::Encode(absl::string_view text) const {
  const std::vector<WeightedTerm> weighted = Weigh(text);
  std::vector<float> out(static_cast<size_t>(width_));
  for (const WeightedTerm& term : weighted) {
    const float* row = projection_.data() + term.term * width_;
    for (int64_t i = 0; i < width_; ++i) out[static_cast<size_t>(i)] += term.weight * row[i];
  }
  // Shorter than this is rounding: all of the text's terms lie outside the projection.
  constexpr double kShortest = 1e-6;
  const double length = std::sqrt(SumOfSquares(out));
  const double scale = length > kShortest ? 1 / length : 0;
  for (float& value : out) value = static_cast<float>(value * scale);
  return out;
}

absl::Status TextEncoder::Save(const std::string& path) const {
  SafetensorsWriter writer;
  writer.Add("terms", {terms()}, std::span<const int64_t>(terms_));
  writer.Add("idf", {terms()}, std::span<const float>(idf_));
  writer.Add("projection", {terms(), width_}, std::span<const float>(projection_));
  writer.SetMetadata("tokenizer", kTokenizerVersion);
  writer.SetMetadata("fields", nlohmann::json(fields_).dump(
                                   -1, ' ', false, nlohmann::json::error_handler_t::replace));
  writer.SetMetadata("items", absl::StrCat(items_));
  return writer.Write(path).status();
}

absl::StatusOr<TextEncoder> TextEncoder::Load(const SafetensorsFile& file,
                                              absl::string_view prefix) {
  const std::string start(prefix);
  const TensorInfo* projection = file.Find(start + "projection");
  if (projection == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(file.path(), " has no text encoder (no tensor ", prefix, "projection)"));
  }
  const auto metadata = [&file, &start](const char* key) {
    const auto found = file.metadata().find(start + key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  if (metadata("tokenizer") != kTokenizerVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(file.path(), ": the text encoder's tokenizer is '", metadata("tokenizer"),
                     "', but this program has '", kTokenizerVersion,
                     "'; use the program that made the file, or prepare and train again"));
  }
  if (projection->shape.size() != 2) {
    return absl::DataLossError(
        absl::StrCat(file.path(), ": tensor ", projection->name, " is not two-dimensional"));
  }
  const int64_t terms = projection->shape[0];
  TextEncoder encoder;
  encoder.width_ = projection->shape[1];
  NESTREC_ASSIGN_OR_RETURN(const std::span<const int64_t> hashes,
                           file.Int64s(start + "terms", {terms}));
  NESTREC_ASSIGN_OR_RETURN(const std::span<const float> idf, file.Floats(start + "idf", {terms}));
  NESTREC_ASSIGN_OR_RETURN(const std::span<const float> rows,
                           file.Floats(start + "projection", projection->shape));
  for (const char* name : {"terms", "idf", "projection"}) {
    NESTREC_RETURN_IF_ERROR(file.Verify(*file.Find(start + name)));
  }
  encoder.terms_.assign(hashes.begin(), hashes.end());
  encoder.idf_.assign(idf.begin(), idf.end());
  encoder.projection_.assign(rows.begin(), rows.end());
  const nlohmann::json fields = nlohmann::json::parse(metadata("fields"), nullptr, false);
  for (const nlohmann::json& field : fields) {
    if (field.is_string()) encoder.fields_.push_back(field.get<std::string>());
  }
  if (!fields.is_array() || encoder.fields_.size() != fields.size() ||
      !absl::SimpleAtoi(metadata("items"), &encoder.items_)) {
    return absl::DataLossError(absl::StrCat(file.path(), ": the metadata ", prefix, "fields or ",
                                            prefix, "items of the text encoder is damaged"));
  }
  NESTREC_RETURN_IF_ERROR(encoder.CheckLoaded(absl::StrCat(file.path(), ": tensor ", prefix)));
  return encoder;
}

absl::Status TextEncoder::CheckLoaded(const std::string& prefix) const {
  if (width_ < 1) return absl::DataLossError(absl::StrCat(prefix, "projection has no columns"));
  for (size_t i = 1; i < terms_.size(); ++i) {
    if (terms_[i - 1] >= terms_[i]) {
      return absl::DataLossError(absl::StrCat(prefix, "terms does not rise at element ", i));
    }
  }
  for (size_t i = 0; i < idf_.size(); ++i) {
    if (!(idf_[i] > 0 && idf_[i] < 1e6F)) {
      return absl::DataLossError(absl::StrCat(prefix, "idf has ", idf_[i], " at element ", i));
    }
  }
  for (size_t i = 0; i < projection_.size(); ++i) {
    if (!(std::abs(projection_[i]) < 1e6F)) {
      return absl::DataLossError(
          absl::StrCat(prefix, "projection has ", projection_[i], " at element ", i));
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec

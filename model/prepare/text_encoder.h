// Turns an item's text into a feature vector without any download: latent semantic analysis. Terms
// (words and pairs of neighbouring words, text_tokenizer.h) are weighted by TF-IDF, and the
// weighted terms are projected on the leading right singular vectors of the catalogue's term matrix
// (randomised_svd.h):
//
//   w_t = (1 + ln tf_t) * idf_t,  idf_t = ln((1 + items) / (1 + items with t)) + 1,  v = sum_t w_t
//   P_t,  out = v / ||v||
//
// A text without a known term gives zeros: the item has no feature. Encode is the only way from
// text to vector, in `prepare` and in a server, so the same program gives the same text the same
// vector, bit for bit.
//
//   NESTREC_ASSIGN_OR_RETURN(const TextEncoder::Fitted fitted, TextEncoder::Fit(texts, options));
//   const std::vector<float> row = fitted.encoder.Encode(ItemText(record,
//   fitted.encoder.fields()));  // [width]
//
// File: safetensors with terms I64 [n] (term hashes, rising), idf F32 [n], projection F32 [n,
// width]; metadata `tokenizer` (kTokenizerVersion), `fields` (JSON list), `items` (how many the
// terms were counted in). In a checkpoint all of these names begin with a prefix.
//
// Thread safety: immutable once created.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/safetensors.h"

namespace nestrec {

// The text of an item: one line per field that its record has, in the order of `fields`
// (item_record.h).
std::string ItemText(absl::string_view record, std::span<const std::string> fields);

class TextEncoder {
 public:
  struct Options {
    // Which fields the texts were made of; kept so that a new item's text is made the same way.
    std::vector<std::string> fields = {"title", "price", "brand", "categories"};
    int64_t width = 256;
    int64_t max_terms = 65536;  // the most frequent ones; each costs 4 * width bytes of the file
    int64_t min_items = 2;      // a term of fewer items is left out: it cannot connect two of them
    int power_iterations = 4;
    uint64_t seed = 1;
  };

  // How well the vectors represent the texts, for people.
  struct FitReport {
    int64_t terms = 0;              // kept
    int64_t distinct_terms = 0;     // found
    int64_t rank = 0;               // columns that are not zero
    double explained_variance = 0;  // part of the squared weights that the projection keeps, 0 to 1
  };

  // kInvalidArgument, naming prepare's flag, for an option outside its limits.
  static absl::Status CheckOptions(const Options& options);

  // texts[i] is item i's ItemText; may be empty. Errors of CheckOptions;
  // kFailedPrecondition, with the cure, when no term occurs in `min_items` texts.
  struct Fitted;
  static absl::StatusOr<Fitted> Fit(std::span<const std::string> texts, const Options& options);

  // Reads the encoder whose names begin with `prefix`: "" for a file of its own, "text_encoder." in
  // a checkpoint. Copies what it needs. kNotFound when the file has none; kFailedPrecondition for
  // terms of another tokenizer; kDataLoss, naming the tensor, for a damaged or inconsistent one.
  static absl::StatusOr<TextEncoder> Load(const SafetensorsFile& file, absl::string_view prefix);
  // Errors of base/file.h.
  absl::Status Save(const std::string& path) const;

  int64_t width() const { return width_; }
  int64_t terms() const { return static_cast<int64_t>(terms_.size()); }
  const std::vector<std::string>& fields() const { return fields_; }

  // [width], of unit length or all zero.
  std::vector<float> Encode(absl::string_view text) const;

 private:
  struct WeightedTerm {
    int64_t term;  // row of the projection
    float weight;
  };
  TextEncoder() = default;
  // The known terms of a text with their TF-IDF weights, by row.
  std::vector<WeightedTerm> Weigh(absl::string_view text) const;
  absl::Status CheckLoaded(const std::string& prefix) const;

  std::vector<std::string> fields_;
  int64_t width_ = 0;
  int64_t items_ = 0;
  std::vector<int64_t> terms_;     // [terms], rising
  std::vector<float> idf_;         // [terms]
  std::vector<float> projection_;  // [terms, width]
};

struct TextEncoder::Fitted {
  TextEncoder encoder;
  FitReport report;
};

}  // namespace nestrec

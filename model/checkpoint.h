// The nested checkpoint: one safetensors file that holds every size of one model, its item
// embeddings, the catalogue, metrics and the text encoder. docs/checkpoint_format.md has the names
// and bytes.
//
// Everything is split by level and stored level by level, so that the first `levels` levels are a
// complete model; opening with a smaller `max_dim` neither reads nor verifies the bytes of the
// wider levels.
//
// Thread safety: an open checkpoint is immutable.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"
#include "base/safetensors.h"
#include "model/architecture.h"
#include "model/catalogue.h"
#include "model/metrics.h"
#include "model/self_check.h"

namespace nestrec {

// One level of a NestedLinear (y[level j] = W_j x[:s_j] + b_j). Views, row-major.
struct LinearLevel {
  std::span<const float> weight;  // [w_j, s_j]
  std::span<const float> bias;    // [w_j]; empty where the layer has none
};

// One level of a layer norm, [w_j] each.
struct NormLevel {
  std::span<const float> scale, shift;
};

// One level of each mixer; vectors are [w_j]. Of the state's layers U of a GRU, and of c_im, there
// is no bias.
struct LruLevel {
  std::span<const float> nu_log, theta_log,
      gamma_log;  // lambda = exp(-exp(nu_log) + i exp(theta_log))
  LinearLevel b_re, b_im;
  LinearLevel c_re, c_im;  // Re(C h + b) = C_re h_re - C_im h_im + b_re
};
struct GruLevel {
  LinearLevel wr, wu, wc;  // reset gate, update gate, candidate: of the input,
  LinearLevel ur, uu, uc;  // of the state
  LinearLevel o;
};
struct AttentionLevel {
  LinearLevel q, k, v, o;
};

// One level of a block. All vectors are [w_j]. What the architecture does not have is empty.
struct BlockLevel {
  std::span<const float> norm1_scale, norm1_shift;
  LruLevel lru;
  GruLevel gru;
  AttentionLevel attention;
  std::span<const float> norm2_scale, norm2_shift;
  LinearLevel wg, w1, w2;
};

// Views on the weights of a model, whoever owns them (a checkpoint or a network in training).
struct ModelView {
  NestedSizes sizes;
  int max_len;
  Architecture architecture;
  int64_t item_rows;                              // items + 1; row 0 is the padding item
  std::vector<std::span<const float>> items;      // per level [item_rows, w_j]
  std::vector<LinearLevel> projector;             // per level: weight [w_j, F], bias [w_j]; F > 0
  std::vector<std::span<const float>> positions;  // per level [max_len, w_j]: by place in a history
  std::vector<std::vector<BlockLevel>> blocks;    // [block][level]
  std::vector<NormLevel> final_norm;              // per level

  // The first `levels` levels.
  ModelView Prefix(int levels) const;
};

// How one modality's features enter the projector.
struct ModalityInfo {
  std::string name;
  int64_t width = 0;
  // "none": as they are; "sqrt_width": each non-zero row scaled to norm sqrt(width).
  std::string scaling = "none";
  // FeaturesFingerprint of what it was trained on; empty: not known, in files of nestrec 0.1.0.
  std::string fingerprint = {};
};

struct ModelInfo {
  static constexpr int kFormatVersion = 1;

  std::string name;     // a label for people: the data folder's name by default
  std::string version;  // fingerprint of the file, 16 hex digits; set on opening
  int max_len = 50;
  int64_t items = 0;                     // without padding
  std::vector<ModalityInfo> modalities;  // none: items are known by learned vectors alone
  std::string recipe_json;               // the training flags, a JSON object
  std::string dataset_fingerprint;
  std::string created;  // RFC 3339, UTC
  std::string program_version;
  // Per size, narrow to wide; empty when the model was never evaluated.
  std::vector<SizeMetrics> validation;
  std::vector<SizeMetrics> test;
  double training_seconds = 0;  // without evaluation; 0: not known
  std::vector<SelfCheckUser> self_check;  // none: nothing to compare with
};

// What a file's header says of a checkpoint.
struct CheckpointShape {
  std::string path;
  NestedSizes sizes;  // those that are loaded
  int64_t items = 0;
  std::vector<uint64_t> level_bytes;  // see Checkpoint::LevelBytes; by levels - 1
};

class Checkpoint {
 public:
  struct Options {
    int max_dim = 0;     // load only the levels up to this size; 0: all
    bool verify = true;  // compare the checksum of every tensor that is loaded
  };

  // Reads the header alone, whatever the size of the file. Errors of Open, as far as the header
  // tells.
  static absl::StatusOr<CheckpointShape> ReadShape(const std::string& path, int max_dim);

  // kNotFound; kDataLoss for a damaged file (the tensor or the place is named); kFailedPrecondition
  // for a file of another kind or format version; kInvalidArgument for a max_dim that it
  // does not hold.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& path,
                                                                const Options& options);

  const ModelInfo& info() const { return info_; }
  const NestedSizes& sizes() const { return view_.sizes; }  // the loaded ones
  const NestedSizes& stored_sizes() const { return stored_sizes_; }
  const ModelView& view() const { return view_; }
  const std::shared_ptr<const Catalogue>& catalogue() const { return catalogue_; }
  const SafetensorsFile& file() const { return *file_; }
  bool has_text_encoder() const;
  // Bytes of the tensors that the first `levels` levels need (weights and item embeddings).
  uint64_t LevelBytes(int levels) const { return level_bytes_[static_cast<size_t>(levels) - 1]; }

  CheckpointShape shape() const { return {file_->path(), view_.sizes, info_.items, level_bytes_}; }

  // Writes the first `levels` levels as a checkpoint of their own.
  absl::Status Export(int levels, const std::string& path) const;

 private:
  friend class CheckpointWriter;
  struct Mapped;
  static absl::StatusOr<Mapped> Map(const std::string& path, int max_dim);
  Checkpoint(NestedSizes stored, ModelView view)
      : stored_sizes_(std::move(stored)), view_(std::move(view)) {}

  std::shared_ptr<const SafetensorsFile> file_;
  NestedSizes stored_sizes_;
  ModelView view_;
  ModelInfo info_;
  std::shared_ptr<const Catalogue> catalogue_;
  std::vector<uint64_t> level_bytes_;  // of the first level, of the first two, ...
};

// Writes `view` and what belongs to it as a checkpoint. `text_encoder` may be null: a file whose
// tensors (all of them, with their metadata) are copied under "text_encoder.". Returns the
// fingerprint, which is the version.
absl::StatusOr<std::string> WriteCheckpoint(const std::string& path, const ModelView& view,
                                            const ModelInfo& info, const Catalogue& catalogue,
                                            const SafetensorsFile* text_encoder);

}  // namespace nestrec

#include "model/checkpoint.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/checkpoint_metadata.h"
#include "model/model_view.h"

namespace nestrec {
namespace {

constexpr absl::string_view kTextEncoderPrefix = "text_encoder.";
constexpr absl::string_view kItemIds = "catalogue.item_ids";
constexpr absl::string_view kItemIdOffsets = "catalogue.item_id_offsets";
constexpr absl::string_view kRecords = "catalogue.records";
constexpr absl::string_view kRecordOffsets = "catalogue.record_offsets";

// Checks the tensors that the first `levels` levels need; the bytes of wider levels are not read.
absl::Status VerifyLevels(const SafetensorsFile& file, int levels) {
  for (const TensorInfo& tensor : file.tensors()) {
    const std::optional<int> level = LevelOfTensor(tensor.name);
    if (!level || *level < levels) NESTREC_RETURN_IF_ERROR(file.Verify(tensor));
  }
  return file.VerifyPadding();
}

absl::StatusOr<std::shared_ptr<const Catalogue>> ReadCatalogue(
    const std::shared_ptr<const SafetensorsFile>& file, int64_t items) {
  NESTREC_ASSIGN_OR_RETURN(const absl::string_view ids, file->Text(kItemIds));
  NESTREC_ASSIGN_OR_RETURN(const auto id_offsets, file->Int64s(kItemIdOffsets, {items + 1}));
  NESTREC_ASSIGN_OR_RETURN(const absl::string_view records, file->Text(kRecords));
  NESTREC_ASSIGN_OR_RETURN(const auto record_offsets, file->Int64s(kRecordOffsets, {items + 1}));
  // Of ours, so that they stay what they were checked to be whoever writes into the file.
  struct Offsets {
    std::vector<int64_t> ids, records;
    std::shared_ptr<const SafetensorsFile> file;
  };
  const auto offsets = std::make_shared<const Offsets>(
      Offsets{.ids = {id_offsets.begin(), id_offsets.end()},
              .records = {record_offsets.begin(), record_offsets.end()},
              .file = file});
  absl::StatusOr<Catalogue> catalogue =
      Catalogue::Create(ids, offsets->ids, records, offsets->records, offsets);
  if (!catalogue.ok()) {
    return absl::DataLossError(
        absl::StrCat(file->path(), ": catalogue: ", catalogue.status().message()));
  }
  return std::make_shared<const Catalogue>(*std::move(catalogue));
}

// The catalogue, the text encoder and the levels of `view`, in the order of
// docs/checkpoint_format.md.
absl::StatusOr<std::string> WriteParts(const std::string& path, ModelView view,
                                       const ModelInfo& info, const Catalogue& catalogue,
                                       const SafetensorsFile* text_encoder,
                                       absl::string_view source_prefix) {
  SafetensorsWriter writer;
  writer.AddText(std::string(kItemIds), catalogue.ids_text());
  writer.Add(std::string(kItemIdOffsets), {info.items + 1}, catalogue.id_offsets());
  writer.AddText(std::string(kRecords), catalogue.records_text());
  writer.Add(std::string(kRecordOffsets), {info.items + 1}, catalogue.record_offsets());
  for (int level = 0; level < view.sizes.levels(); ++level) {
    NESTREC_RETURN_IF_ERROR(VisitLevel(view, FeatureWidth(info), level,
                                       [&writer](std::string name, std::vector<int64_t> shape,
                                                 std::span<const float>& values) -> absl::Status {
                                         writer.Add(std::move(name), std::move(shape), values);
                                         return absl::OkStatus();
                                       }));
  }
  if (text_encoder != nullptr) {
    NESTREC_RETURN_IF_ERROR(CopyTensors(*text_encoder, source_prefix, kTextEncoderPrefix, writer));
  }
  for (auto& [key, value] :
       MetadataOf(info, view.sizes, static_cast<int>(view.blocks.size()), view.architecture)) {
    writer.SetMetadata(key, value);
  }
  return writer.Write(path);
}

}  // namespace

ModelView ModelView::Prefix(int levels) const {
  ModelView prefix = *this;
  const size_t count = static_cast<size_t>(levels);
  prefix.sizes = sizes.Prefix(levels);
  prefix.items.resize(count);
  prefix.projector.resize(count);
  prefix.positions.resize(count);
  prefix.final_norm.resize(count);
  for (std::vector<BlockLevel>& block : prefix.blocks) block.resize(count);
  return prefix;
}

bool Checkpoint::has_text_encoder() const {
  for (const TensorInfo& tensor : file_->tensors()) {
    if (absl::StartsWith(tensor.name, kTextEncoderPrefix)) return true;
  }
  return false;
}

// The file with its tensors in their places; none of them is read.
struct Checkpoint::Mapped {
  std::shared_ptr<const SafetensorsFile> file;
  CheckpointMetadata metadata;
  ModelView view;
  std::vector<uint64_t> level_bytes;
};

absl::StatusOr<Checkpoint::Mapped> Checkpoint::Map(const std::string& path, int max_dim) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsFile> file,
                           SafetensorsFile::Open(path, /*require_checksums=*/true));
  NESTREC_ASSIGN_OR_RETURN(CheckpointMetadata metadata, ParseMetadata(path, file->metadata()));
  metadata.info.version = file->fingerprint();
  int levels = metadata.sizes.levels();
  if (max_dim != 0) {
    NESTREC_ASSIGN_OR_RETURN(levels, metadata.sizes.LevelsOf(max_dim));
  }
  ModelView view = EmptyView(metadata.sizes.Prefix(levels), metadata.blocks,
                             metadata.info.items + 1, metadata.info.max_len, metadata.architecture);
  uint64_t bytes = 0;
  std::vector<uint64_t> level_bytes;
  for (int level = 0; level < levels; ++level) {
    NESTREC_RETURN_IF_ERROR(
        VisitLevel(view, FeatureWidth(metadata.info), level,
                   [&](const std::string& name, const std::vector<int64_t>& shape,
                       std::span<const float>& values) -> absl::Status {
                     NESTREC_ASSIGN_OR_RETURN(values, file->Floats(name, shape));
                     bytes += values.size_bytes();
                     return absl::OkStatus();
                   }));
    level_bytes.push_back(bytes);
  }
  return Mapped{file, std::move(metadata), std::move(view), std::move(level_bytes)};
}

absl::StatusOr<CheckpointShape> Checkpoint::ReadShape(const std::string& path, int max_dim) {
  NESTREC_ASSIGN_OR_RETURN(Mapped mapped, Map(path, max_dim));
  return CheckpointShape{.path = path,
                         .sizes = mapped.view.sizes,
                         .items = mapped.metadata.info.items,
                         .level_bytes = std::move(mapped.level_bytes)};
}

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& path,
                                                                   const Options& options) {
  NESTREC_ASSIGN_OR_RETURN(Mapped mapped, Map(path, options.max_dim));
  if (options.verify) {
    NESTREC_RETURN_IF_ERROR(VerifyLevels(*mapped.file, mapped.view.sizes.levels()));
  }
  NESTREC_ASSIGN_OR_RETURN(std::shared_ptr<const Catalogue> catalogue,
                           ReadCatalogue(mapped.file, mapped.metadata.info.items));
  std::shared_ptr<Checkpoint> checkpoint(
      new Checkpoint(mapped.metadata.sizes, std::move(mapped.view)));
  checkpoint->file_ = std::move(mapped.file);
  checkpoint->info_ = std::move(mapped.metadata.info);
  checkpoint->catalogue_ = std::move(catalogue);
  checkpoint->level_bytes_ = std::move(mapped.level_bytes);
  return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
}

absl::Status Checkpoint::Export(int levels, const std::string& path) const {
  if (levels < 1 || levels > view_.sizes.levels()) {
    return absl::InvalidArgumentError(
        absl::StrCat("levels: ", levels, " is outside 1..", view_.sizes.levels()));
  }
  ModelInfo info = info_;
  const auto keep_prefix = [&](std::vector<SizeMetrics>& metrics) {
    if (metrics.size() > static_cast<size_t>(levels)) metrics.resize(static_cast<size_t>(levels));
  };
  keep_prefix(info.validation);
  keep_prefix(info.test);
  for (SelfCheckUser& user : info.self_check) {
    user.scores.resize(static_cast<size_t>(levels));
    user.ranks.resize(static_cast<size_t>(levels));
  }
  return WriteParts(path, view_.Prefix(levels), info, *catalogue_,
                    has_text_encoder() ? file_.get() : nullptr, kTextEncoderPrefix)
      .status();
}

absl::StatusOr<std::string> WriteCheckpoint(const std::string& path, const ModelView& view,
                                            const ModelInfo& info, const Catalogue& catalogue,
                                            const SafetensorsFile* text_encoder) {
  return WriteParts(path, view, info, catalogue, text_encoder, "");
}

}  // namespace nestrec

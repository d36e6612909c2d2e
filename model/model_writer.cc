#include "model/model_writer.h"

#include <torch/torch.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/features.h"
#include "model/self_check.h"

namespace nestrec {
namespace {

ModelInfo InfoOf(const Dataset& dataset, const TrainerOptions& options,
                 const std::vector<SizeMetrics>& validation) {
  ModelInfo info;
  info.name = options.name;
  info.max_len = options.recipe.max_len;
  info.items = dataset.items();
  info.modalities = DescribeModalities(dataset, options.recipe.feature_scaling);
  info.recipe_json = options.recipe.ToJson();
  info.dataset_fingerprint = dataset.fingerprint;
  info.created = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  info.program_version = options.program_version;
  info.validation = validation;
  return info;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> ModelWriter::TextEncoderFile() const {
  const std::string path = dataset_.folder + "/features/text.encoder.safetensors";
  const bool uses_text =
      std::any_of(dataset_.modalities.begin(), dataset_.modalities.end(),
                  [](const Modality& modality) { return modality.name == "text"; });
  if (!uses_text || !FileExists(path)) return std::shared_ptr<const SafetensorsFile>();
  return SafetensorsFile::Open(path, /*require_checksums=*/true);
}

absl::Status ModelWriter::Write(Network& network, const torch::Tensor& features,
                                const Whitening* whitening,
                                const std::vector<SizeMetrics>& validation) const {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> levels;
  const torch::Tensor items = network.ItemEmbeddings(features);
  ModelView view = network.View(items, levels);
  Projector raw;
  if (whitening != nullptr) {
    raw = whitening->Fold(network.parameters().projector.to(torch::kCPU),
                          network.parameters().projector_bias.to(torch::kCPU));
    Network::SetProjector(raw.weight, raw.bias, view);
  }
  NESTREC_ASSIGN_OR_RETURN(const auto text_encoder, TextEncoderFile());
  return WriteCheckpoint(options_.output, view, InfoOf(dataset_, options_, validation),
                         *dataset_.catalogue, text_encoder.get())
      .status();
}

absl::StatusOr<std::vector<SizeMetrics>> ModelWriter::Complete(const Evaluate& evaluate,
                                                               absl::Duration training_time) const {
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options_.output, {}));
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  NESTREC_ASSIGN_OR_RETURN(Evaluation evaluation, evaluate(*encoder));
  ModelInfo info = checkpoint->info();
  info.test = evaluation.sizes;
  info.training_seconds = absl::ToDoubleSeconds(training_time);
  NESTREC_ASSIGN_OR_RETURN(info.self_check, MakeSelfCheck(*encoder, dataset_, evaluation.ranks));
  NESTREC_ASSIGN_OR_RETURN(const auto text_encoder, TextEncoderFile());
  NESTREC_RETURN_IF_ERROR(WriteCheckpoint(options_.output, checkpoint->view(), info,
                                          *checkpoint->catalogue(), text_encoder.get())
                              .status());
  return std::move(evaluation.sizes);
}

}  // namespace nestrec

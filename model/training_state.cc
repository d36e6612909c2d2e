#include "model/training_state.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/guard.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "model/metrics_json.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kGenerator[] = "generator";

// Rank 0's, and that of a single process, goes by the plain name.
std::string GeneratorName(size_t rank) {
  return rank == 0 ? std::string(kGenerator) : absl::StrCat(kGenerator, ".", rank);
}

// Where `saved` says nothing of any features, gives it what `now` says; returns whether it said.
bool TakeOverUnknownFeatures(const Json& now, Json& saved) {
  const auto of_features = [](const std::string& key) {
    return absl::StartsWith(key, kFeaturesOfIdentity);
  };
  for (const auto& [key, unused] : saved.items()) {
    if (of_features(key)) return true;
  }
  bool knows = true;
  for (const auto& [key, value] : now.items()) {
    if (!of_features(key)) continue;
    saved[key] = value;
    knows = false;
  }
  return knows;
}

}  // namespace

std::vector<std::string> IdentityDifferences(const std::string& one_json, absl::string_view one,
                                             const std::string& other_json,
                                             absl::string_view other) {
  const Json first = Json::parse(one_json, nullptr, /*allow_exceptions=*/false);
  const Json second = Json::parse(other_json, nullptr, /*allow_exceptions=*/false);
  const auto text = [](const Json& json, const std::string& key) {
    return json.contains(key) ? json[key].dump() : std::string("nothing");
  };
  Json keys = second;
  keys.update(first);
  std::vector<std::string> differences;
  for (const auto& [key, unused] : keys.items()) {
    if (text(first, key) != text(second, key)) {
      differences.push_back(
          absl::StrCat(key, ": ", text(first, key), " ", one, ", ", text(second, key), " ", other));
    }
  }
  return differences;
}

absl::Status SaveTrainingState(const std::string& path, const std::string& identity_json,
                               const TrainingProgress& progress, Network& network,
                               const Optimizer& optimizer) {
  SafetensorsWriter writer;
  std::vector<torch::Tensor> kept;
  const auto add = [&](const std::string& name, const torch::Tensor& source) {
    const torch::Tensor tensor = source.detach().to(torch::kCPU).contiguous();
    kept.push_back(tensor);
    writer.Add(
        name, tensor.sizes().vec(),
        std::span<const float>(tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())));
  };
  for (const NetworkParameters::Named& parameter : network.parameters().All()) {
    add(parameter.name, *parameter.tensor);
  }
  for (const Optimizer::Moment& moment : optimizer.moments()) add(moment.name, moment.tensor);
  Json json;
  json["epoch"] = progress.epoch;
  json["steps"] = progress.steps;
  json["optimizer_steps"] = optimizer.steps();
  json["best_epoch"] = progress.best_epoch;
  json["best_ndcg"] = progress.best_ndcg;
  json["best_validation"] = MetricsToJson(progress.best_validation);
  json["training_seconds"] = absl::ToDoubleSeconds(progress.training_time);
  const PartialEpoch& partial = progress.partial;
  if (partial.steps > 0) {
    json["partial"] = {{"steps", partial.steps},
                       {"loss", partial.loss},
                       {"gradient_norm", partial.gradient_norm},
                       {"positions", partial.positions},
                       {"flops", partial.flops},
                       {"training_seconds", absl::ToDoubleSeconds(partial.training_time)}};
    json["processes"] = partial.generators.size();
    for (size_t rank = 0; rank < partial.generators.size(); ++rank) {
      writer.AddText(GeneratorName(rank), partial.generators[rank]);
    }
  }
  writer.SetMetadata("format", "nestrec training state");
  writer.SetMetadata("identity", identity_json);
  writer.SetMetadata("progress", json.dump());
  return writer.Write(path).status();
}

absl::StatusOr<TrainingProgress> LoadTrainingState(const std::string& path,
                                                   const std::string& identity_json,
                                                   Network& network, Optimizer& optimizer) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const SafetensorsFile> file,
                           SafetensorsFile::Open(path, /*require_checksums=*/true));
  const auto entry = [&](const std::string& key) {
    const auto it = file->metadata().find(key);
    return it == file->metadata().end() ? std::string() : it->second;
  };
  Json saved = Json::parse(entry("identity"), nullptr, /*allow_exceptions=*/false);
  const Json json = Json::parse(entry("progress"), nullptr, /*allow_exceptions=*/false);
  if (!saved.is_object() || !json.is_object()) {
    return absl::DataLossError(absl::StrCat(path, " is not the state of a training run"));
  }
  const bool knows_features = TakeOverUnknownFeatures(
      Json::parse(identity_json, nullptr, /*allow_exceptions=*/false), saved);
  const std::vector<std::string> differences =
      IdentityDifferences(saved.dump(), "in the saved run", identity_json, "now");
  if (!differences.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " belongs to another run (", absl::StrJoin(differences, "; "),
                     "); give the same flags, or --overwrite to start anew"));
  }
  for (const TensorInfo& tensor : file->tensors()) NESTREC_RETURN_IF_ERROR(file->Verify(tensor));
  const torch::NoGradGuard no_grad;
  const auto load = [&](const std::string& name, const torch::Tensor& target) -> absl::Status {
    NESTREC_ASSIGN_OR_RETURN(const std::span<const float> values,
                             file->Floats(name, target.sizes().vec()));
    const torch::Tensor source = torch::empty(target.sizes());
    std::memcpy(source.data_ptr<float>(), values.data(), values.size_bytes());
    return Guard("restore a tensor", [&]() -> absl::Status {
      torch::Tensor(target).copy_(source);
      return absl::OkStatus();
    });
  };
  for (const NetworkParameters::Named& parameter : network.parameters().All()) {
    NESTREC_RETURN_IF_ERROR(load(parameter.name, *parameter.tensor));
  }
  for (const Optimizer::Moment& moment : optimizer.moments()) {
    NESTREC_RETURN_IF_ERROR(load(moment.name, moment.tensor));
  }
  optimizer.set_steps(json.value("optimizer_steps", int64_t{0}));
  TrainingProgress progress;
  progress.knows_features = knows_features;
  progress.epoch = json.value("epoch", 0);
  progress.steps = json.value("steps", int64_t{0});
  progress.best_epoch = json.value("best_epoch", 0);
  progress.best_ndcg = json.value("best_ndcg", -1.0);
  progress.training_time = absl::Seconds(json.value("training_seconds", 0.0));
  NESTREC_ASSIGN_OR_RETURN(progress.best_validation,
                           MetricsFromJson(json.value("best_validation", Json::array())));
  if (const Json partial = json.value("partial", Json()); partial.is_object()) {
    progress.partial = {.steps = partial.value("steps", int64_t{0}),
                        .loss = partial.value("loss", 0.0),
                        .gradient_norm = partial.value("gradient_norm", 0.0),
                        .positions = partial.value("positions", int64_t{0}),
                        .flops = partial.value("flops", int64_t{0}),
                        .training_time = absl::Seconds(partial.value("training_seconds", 0.0))};
    const size_t processes = json.value("processes", size_t{1});
    for (size_t rank = 0; rank < processes; ++rank) {
      NESTREC_ASSIGN_OR_RETURN(const absl::string_view generator, file->Text(GeneratorName(rank)));
      progress.partial.generators.emplace_back(generator);
    }
  }
  return progress;
}

}  // namespace nestrec

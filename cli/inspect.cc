// nestrec inspect: a checkpoint on one page.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/metrics_table.h"
#include "model/checkpoint.h"
#include "model/model_view.h"

namespace nestrec {
namespace {

struct InspectFlags {
  std::string model;
  bool tensors = false;
  bool skip_verify = false;
};

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return absl::StrFormat("%d B", bytes);
  double value = static_cast<double>(bytes);
  for (const char* unit : {"KiB", "MiB", "GiB"}) {
    value /= 1024;
    if (value < 1024) return absl::StrFormat("%.1f %s", value, unit);
  }
  return absl::StrFormat("%.1f TiB", value / 1024);
}

void PrintFacts(const Checkpoint& checkpoint, bool verified) {
  const ModelInfo& info = checkpoint.info();
  std::vector<std::string> modalities;
  for (const ModalityInfo& modality : info.modalities) {
    modalities.push_back(
        absl::StrCat(modality.name, " ", modality.width, " (scaling ", modality.scaling, ")"));
  }
  const std::vector<std::pair<const char*, std::string>> facts = {
      {"model", info.name},
      {"version", info.version},
      {"file",
       absl::StrCat(checkpoint.file().path(), ", ", FormatBytes(checkpoint.file().size_bytes()),
                    ", format ", ModelInfo::kFormatVersion,
                    verified ? ", every checksum verified" : ", checksums not verified")},
      {"created", absl::StrCat(info.created, " by nestrec ", info.program_version)},
      {"sizes", checkpoint.sizes().ToString()},
      {"blocks", absl::StrCat(checkpoint.view().blocks.size())},
      {"mixer", absl::StrCat(Describe(checkpoint.view().architecture), "; ",
                             DescribeStep(checkpoint.view().architecture))},
      {"max_len", absl::StrCat(info.max_len)},
      {"items", absl::StrCat(info.items)},
      {"features",
       modalities.empty() ? "none: learned item vectors alone" : absl::StrJoin(modalities, ", ")},
      {"text encoder",
       checkpoint.has_text_encoder() ? "yes: how its text features were made" : "no"},
      {"data", info.dataset_fingerprint},
  };
  for (const auto& [name, value] : facts) std::printf("%-13s %s\n", name, Printable(value).c_str());
  const auto recipe =
      nlohmann::ordered_json::parse(info.recipe_json, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> settings;
  if (recipe.is_object()) {
    for (const auto& [key, value] : recipe.items())
      settings.push_back(absl::StrCat(key, " ", value.dump()));
  }
  std::printf("%-13s %s\n", "recipe", Printable(absl::StrJoin(settings, ", ")).c_str());
}

void PrintSizes(const Checkpoint& checkpoint) {
  std::printf("\n%8s  %12s  %14s\n", "dim", "bytes", "of the widest");
  const uint64_t all = checkpoint.LevelBytes(checkpoint.sizes().levels());
  for (int levels = 1; levels <= checkpoint.sizes().levels(); ++levels) {
    const uint64_t bytes = checkpoint.LevelBytes(levels);
    std::printf("%8d  %12s  %13.1f%%\n", checkpoint.sizes().end(levels - 1),
                FormatBytes(bytes).c_str(),
                100.0 * static_cast<double>(bytes) / static_cast<double>(all));
  }
}

absl::Status RunInspect(const InspectFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(
      const auto checkpoint,
      Checkpoint::Open(flags.model, {.max_dim = 0, .verify = !flags.skip_verify}));
  PrintFacts(*checkpoint, !flags.skip_verify);
  PrintSizes(*checkpoint);
  const std::pair<const char*, const std::vector<SizeMetrics>*> splits[] = {
      {"validation", &checkpoint->info().validation}, {"test", &checkpoint->info().test}};
  for (const auto& [name, metrics] : splits) {
    if (metrics->empty()) continue;
    std::printf("\n%s items, full ranking, only padding masked\n%s", name,
                FormatMetricsTable("dim", RowsOf(*metrics)).c_str());
  }
  if (!flags.tensors) return absl::OkStatus();
  std::printf("\n");
  for (const TensorInfo& tensor : checkpoint->file().tensors()) {
    std::printf("%12d  %4s  %-18s  %s\n", static_cast<int>(tensor.begin_bytes),
                std::string(DTypeName(tensor.dtype)).c_str(),
                absl::StrCat("[", absl::StrJoin(tensor.shape, ", "), "]").c_str(),
                Printable(tensor.name).c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddInspectCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command = app.add_subcommand("inspect", "Show what a checkpoint holds");
  command->add_option("model", flags->model, "Checkpoint")->required();
  command->add_flag("--tensors", flags->tensors,
                    "Also list every tensor: first byte, type, shape, name");
  command->add_flag("--no-verify", flags->skip_verify,
                    "Do not read all bytes to compare checksums");
  command->callback([flags, selected] { *selected = [flags] { return RunInspect(*flags); }; });
}

}  // namespace nestrec

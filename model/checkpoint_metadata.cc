#include "model/checkpoint_metadata.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/metrics_json.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxBlocks = 256;
constexpr int kMaxMaxLen = 100000;
constexpr int64_t kMaxItems = int64_t{1} << 31;
constexpr int64_t kMaxFeatureWidth = int64_t{1} << 20;

// Reads the entries of one metadata map; the first problem stays in `status`.
class Reader {
 public:
  Reader(const std::string& path, const std::map<std::string, std::string>& entries)
      : path_(path), entries_(entries) {}

  // Whether there is such a key. Keys that came later than the format are absent in older files.
  bool Has(const std::string& key) const { return entries_.contains(key); }
  const std::string& Text(const std::string& key) {
    const auto it = entries_.find(key);
    if (it != entries_.end()) return it->second;
    Fail(absl::StrCat("metadata '", key, "' is missing"));
    static const std::string& empty = *new std::string();
    return empty;
  }
  int64_t Number(const std::string& key, int64_t low, int64_t high) {
    const std::string& text = Text(key);
    int64_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || value < low || value > high) {
      Fail(absl::StrCat("metadata '", key, "' is '", text, "', not a whole number from ", low,
                        " to ", high));
    }
    return value;
  }
  Json Parsed(const std::string& key) {
    const std::string& text = Text(key);
    Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) Fail(absl::StrCat("metadata '", key, "' is not JSON"));
    return json;
  }
  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::DataLossError(absl::StrCat(path_, ": ", what));
  }
  const absl::Status& status() const { return status_; }

 private:
  const std::string& path_;
  const std::map<std::string, std::string>& entries_;
  absl::Status status_;
};

std::vector<ModalityInfo> ParseModalities(Reader& reader) {
  std::vector<ModalityInfo> modalities;
  const Json json = reader.Parsed("modalities");
  if (!json.is_array()) {
    reader.Fail("metadata 'modalities' is not a list");
    return modalities;
  }
  for (const Json& entry : json) {
    const bool valid = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                       entry.contains("width") && entry["width"].is_number_integer() &&
                       entry.contains("scaling") && entry["scaling"].is_string();
    if (!valid || entry["width"].get<int64_t>() < 1 ||
        entry["width"].get<int64_t>() > kMaxFeatureWidth) {
      reader.Fail(
          "metadata 'modalities' has an entry without a name, a scaling or a possible width");
      return modalities;
    }
    const Json fingerprint = entry.value("xxh3_64", Json(""));
    modalities.push_back({entry["name"].get<std::string>(), entry["width"].get<int64_t>(),
                          entry["scaling"].get<std::string>(),
                          fingerprint.is_string() ? fingerprint.get<std::string>() : ""});
  }
  return modalities;
}

// Nothing, or one entry per size.
std::vector<SizeMetrics> ParseMetrics(Reader& reader, const std::string& key,
                                      const NestedSizes& sizes) {
  absl::StatusOr<std::vector<SizeMetrics>> metrics = MetricsFromJson(reader.Parsed(key));
  if (!metrics.ok()) {
    reader.Fail(absl::StrCat("metadata '", key, "': ", metrics.status().message()));
    return {};
  }
  const bool one_per_size =
      std::equal(metrics->begin(), metrics->end(), sizes.values().begin(), sizes.values().end(),
                 [](const SizeMetrics& size, int dim) { return size.dim == dim; });
  if (!metrics->empty() && !one_per_size) {
    reader.Fail(absl::StrCat("metadata '", key, "' is not about the sizes ", sizes.ToString()));
  }
  return *std::move(metrics);
}

// A key that is absent says what the published model has.
Architecture ParseArchitecture(Reader& reader) {
  Architecture architecture;
  const auto parse = [&](const std::string& key, auto&& parser, auto& value) {
    if (!reader.Has(key)) return;
    if (auto parsed = parser(reader.Text(key)); parsed.ok()) {
      value = *parsed;
    } else {
      reader.Fail(absl::StrCat("metadata '", key, "': ", parsed.status().message(),
                               "; a newer nestrec may know it"));
    }
  };
  parse("mixer", ParseMixer, architecture.mixer);
  parse("feed_forward", ParseFeedForward, architecture.feed_forward);
  if (architecture.mixer == Mixer::kAttention) {
    architecture.head_width =
        static_cast<int>(reader.Number("head_width", 1, Architecture::kMaxHeadWidth));
  }
  if (reader.Has("final_norm")) architecture.final_norm = reader.Number("final_norm", 0, 1) == 1;
  if (reader.Has("input_scale")) {
    const std::string& text = reader.Text("input_scale");
    if (!absl::SimpleAtof(text, &architecture.input_scale) ||
        !std::isfinite(architecture.input_scale) || architecture.input_scale <= 0) {
      reader.Fail(absl::StrCat("metadata 'input_scale' is '", text, "', not a number above 0"));
    }
  }
  return architecture;
}

// Only what is not as in the published model, but for the mixer, which is always named.
void AddArchitecture(const Architecture& architecture, std::map<std::string, std::string>& map) {
  map["mixer"] = std::string(MixerName(architecture.mixer));
  if (architecture.mixer == Mixer::kAttention) {
    map["head_width"] = absl::StrCat(architecture.head_width);
  }
  if (architecture.feed_forward != FeedForward::kGated) {
    map["feed_forward"] = std::string(FeedForwardName(architecture.feed_forward));
  }
  if (architecture.final_norm) map["final_norm"] = "1";
  if (architecture.input_scale != 1.0f) {
    map["input_scale"] = absl::StrFormat("%.9g", architecture.input_scale);
  }
}

}  // namespace

std::map<std::string, std::string> MetadataOf(const ModelInfo& info, const NestedSizes& sizes,
                                              int blocks, const Architecture& architecture) {
  Json modalities = Json::array();
  for (const ModalityInfo& modality : info.modalities) {
    Json entry = {
        {"name", modality.name}, {"width", modality.width}, {"scaling", modality.scaling}};
    if (!modality.fingerprint.empty()) entry["xxh3_64"] = modality.fingerprint;
    modalities.push_back(std::move(entry));
  }
  std::map<std::string, std::string> map = {
      {"format", "nestrec"},
      {"format_version", absl::StrCat(ModelInfo::kFormatVersion)},
      {"name", info.name},
      {"sizes", sizes.ToString()},
      {"blocks", absl::StrCat(blocks)},
      {"max_len", absl::StrCat(info.max_len)},
      {"items", absl::StrCat(info.items)},
      {"modalities", modalities.dump()},
      {"recipe", info.recipe_json},
      {"dataset_fingerprint", info.dataset_fingerprint},
      {"created", info.created},
      {"program_version", info.program_version},
      {"validation_metrics", MetricsToJson(info.validation).dump()},
      {"test_metrics", MetricsToJson(info.test).dump()},
  };
  if (!info.self_check.empty()) map["self_check"] = SelfCheckToJson(info.self_check).dump();
  if (info.training_seconds > 0) {
    map["training_seconds"] = absl::StrFormat("%.3f", info.training_seconds);
  }
  AddArchitecture(architecture, map);
  return map;
}

absl::StatusOr<CheckpointMetadata> ParseMetadata(
    const std::string& path, const std::map<std::string, std::string>& metadata) {
  const auto format = metadata.find("format");
  if (format == metadata.end() || format->second != "nestrec") {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is a safetensors file, but not a nestrec checkpoint; `nestrec train` makes one"));
  }
  Reader reader(path, metadata);
  const int64_t version = reader.Number("format_version", 0, 1 << 30);
  if (reader.status().ok() && version != ModelInfo::kFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": checkpoint format version ", version,
                     ", but this program reads version ", ModelInfo::kFormatVersion,
                     version > ModelInfo::kFormatVersion ? "; use a newer nestrec" : ""));
  }
  absl::StatusOr<NestedSizes> sizes = NestedSizes::Parse(reader.Text("sizes"));
  if (!sizes.ok()) {
    return absl::DataLossError(
        absl::StrCat(path, ": metadata 'sizes': ", sizes.status().message()));
  }
  ModelInfo info;
  info.name = reader.Text("name");
  info.max_len = static_cast<int>(reader.Number("max_len", 1, kMaxMaxLen));
  info.items = reader.Number("items", 1, kMaxItems);
  info.modalities = ParseModalities(reader);
  info.recipe_json = reader.Text("recipe");
  info.dataset_fingerprint = reader.Text("dataset_fingerprint");
  info.created = reader.Text("created");
  info.program_version = reader.Text("program_version");
  info.validation = ParseMetrics(reader, "validation_metrics", *sizes);
  info.test = ParseMetrics(reader, "test_metrics", *sizes);
  if (reader.Has("self_check")) {
    auto users = SelfCheckFromJson(reader.Parsed("self_check"), info.items, sizes->values().size());
    if (users.ok()) {
      info.self_check = *std::move(users);
    } else {
      reader.Fail(absl::StrCat("metadata 'self_check': ", users.status().message()));
    }
  }
  if (reader.Has("training_seconds") &&
      !(absl::SimpleAtod(reader.Text("training_seconds"), &info.training_seconds) &&
        std::isfinite(info.training_seconds) && info.training_seconds >= 0)) {
    reader.Fail("metadata 'training_seconds' is not a number of seconds");
  }
  const int blocks = static_cast<int>(reader.Number("blocks", 1, kMaxBlocks));
  const Architecture architecture = ParseArchitecture(reader);
  NESTREC_RETURN_IF_ERROR(reader.status());
  return CheckpointMetadata{.sizes = *std::move(sizes),
                            .blocks = blocks,
                            .architecture = architecture,
                            .info = std::move(info)};
}

absl::Status CopyTensors(const SafetensorsFile& source, absl::string_view from,
                         absl::string_view to, SafetensorsWriter& writer) {
  for (const TensorInfo& tensor : source.tensors()) {
    if (!absl::StartsWith(tensor.name, from)) continue;
    NESTREC_RETURN_IF_ERROR(source.Verify(tensor));
    std::string name = absl::StrCat(to, absl::string_view(tensor.name).substr(from.size()));
    switch (tensor.dtype) {
      case DType::kF32: {
        NESTREC_ASSIGN_OR_RETURN(const auto values, source.Floats(tensor.name, tensor.shape));
        writer.Add(std::move(name), tensor.shape, values);
        break;
      }
      case DType::kI64: {
        NESTREC_ASSIGN_OR_RETURN(const auto values, source.Int64s(tensor.name, tensor.shape));
        writer.Add(std::move(name), tensor.shape, values);
        break;
      }
      case DType::kI32: {
        NESTREC_ASSIGN_OR_RETURN(const auto values, source.Int32s(tensor.name, tensor.shape));
        writer.Add(std::move(name), tensor.shape, values);
        break;
      }
      case DType::kU8: {
        NESTREC_ASSIGN_OR_RETURN(const absl::string_view text, source.Text(tensor.name));
        writer.AddText(std::move(name), text);
        break;
      }
    }
  }
  for (const auto& [key, value] : source.metadata()) {
    if (absl::StartsWith(key, from)) {
      writer.SetMetadata(absl::StrCat(to, absl::string_view(key).substr(from.size())), value);
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec

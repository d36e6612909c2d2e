#include "server/memory_budget.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "index/faiss_index.h"
#include "index/nested_builder.h"
#include "index/reduced_view.h"
#include "server/catalogue_attributes.h"
#include "server/index_builder.h"

namespace nestrec {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
// docs/kubernetes.md: what building nested indexes takes for a while.
constexpr uint64_t kNestedScratchBytes = 80 * kMiB;
// Bytes of an item in an index beside its columns: norms and scales of a nested one; lists, links
// and ids of one of FAISS's whose factory string does not say what it holds.
constexpr uint64_t kNestedItemBytes = 20;
constexpr uint64_t kOtherItemBytes = 300;
// Of the number of an item in FAISS's lists.
constexpr uint64_t kIdBytes = 8;
// FAISS finds the centres of its lists with a copy of so many items for each, where there are more.
constexpr uint64_t kItemsPerCentre = 256;
// A catalogue is judged by this many of its items.
constexpr int64_t kSampledItems = 16384;

std::string Amount(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / static_cast<double>(kMiB);
  return mib < 1024 ? absl::StrFormat("%.0f MiB", mib) : absl::StrFormat("%.1f GiB", mib / 1024);
}

// What a model takes of a limit that has to hold all of it.
uint64_t NeedOf(const MemoryRequest& request, const ModelMemory& model, const MemoryLimit& limit) {
  const uint64_t mapped = limit.counts_mappings ? model.mapped_bytes : 0;
  const uint64_t held = limit.counts_mappings ? 0 : request.held_bytes;
  return model.total() - mapped + request.state_bytes + request.call_bytes + held;
}

// An index of FAISS that holds codes, by its factory string: [IVF<lists>,] before SQ8, SQ4, SQfp16
// or PQ<parts>[x<bits>][fs].
struct CodedIndex {
  uint64_t lists = 0;       // 0: one array of codes
  uint64_t code_bytes = 0;  // of an item
  bool grows = false;       // by doubling: half of the places may be empty
  bool trained = true;      // with a float32 copy of TrainingItems()
};

std::optional<CodedIndex> ParseCodedIndex(absl::string_view factory, uint64_t columns) {
  CodedIndex index;
  if (absl::ConsumePrefix(&factory, "IVF")) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(factory, absl::MaxSplits(',', 1));
    uint32_t lists = 0;
    if (!absl::SimpleAtoi(parts.first, &lists) || lists == 0) return std::nullopt;
    index.lists = lists;
    factory = parts.second;
  }
  index.grows = index.lists > 0;
  if (factory == "SQ8") {
    index.code_bytes = columns;
  } else if (factory == "SQ4") {
    index.code_bytes = (columns + 1) / 2;
  } else if (factory == "SQfp16") {
    index.code_bytes = 2 * columns;
    index.trained = index.lists > 0;
  } else if (absl::ConsumePrefix(&factory, "PQ")) {
    index.grows |= absl::ConsumeSuffix(&factory, "fs");
    const std::vector<absl::string_view> numbers = absl::StrSplit(factory, absl::MaxSplits('x', 1));
    uint32_t parts = 0, bits = 8;
    if (!absl::SimpleAtoi(numbers[0], &parts)) return std::nullopt;
    if (numbers.size() > 1 && !absl::SimpleAtoi(numbers[1], &bits)) return std::nullopt;
    index.code_bytes = (uint64_t{parts} * bits + 7) / 8;
  }
  if (index.code_bytes == 0) return std::nullopt;
  return index;
}

bool Fits(const MemoryRequest& request, const ModelMemory& model,
          std::span<const MemoryLimit> limits) {
  return std::all_of(limits.begin(), limits.end(), [&](const MemoryLimit& limit) {
    return NeedOf(request, model, limit) <= limit.left_bytes;
  });
}

// What the fields of `sampled` items take, spread evenly over the catalogue; nothing where they
// cannot be read: the whole catalogue will say why.
std::optional<double> SampledFieldBytes(const Catalogue& catalogue,
                                        const std::vector<std::string>& fields, int64_t sampled) {
  std::vector<std::string> ids, records;
  for (int64_t i = 0; i < sampled; ++i) {
    const int64_t item = 1 + i * catalogue.size() / sampled;
    ids.emplace_back(catalogue.id(item));
    records.emplace_back(catalogue.record(item));
  }
  const absl::StatusOr<Catalogue> sample = Catalogue::Create(ids, records);
  if (!sample.ok()) return std::nullopt;
  const absl::StatusOr<CatalogueAttributes> read = ReadAttributes(*sample, fields);
  if (!read.ok()) return std::nullopt;
  return static_cast<double>(read->table.bytes());
}

// What the fields of all items take. Values that many items share count once: what an item adds is
// the difference between a sample and its half.
uint64_t FieldBytes(const Catalogue& catalogue, const std::vector<std::string>& fields) {
  const int64_t items = catalogue.size();
  const int64_t sampled = std::min(items, kSampledItems);
  if (sampled < 2) return 0;
  const std::optional<double> half = SampledFieldBytes(catalogue, fields, sampled / 2);
  const std::optional<double> whole = SampledFieldBytes(catalogue, fields, sampled);
  if (!half.has_value() || !whole.has_value()) return 0;
  const double each = (*whole - *half) / static_cast<double>(sampled - sampled / 2);
  return static_cast<uint64_t>(std::max(0.0, *whole + each * static_cast<double>(items - sampled)));
}

}  // namespace

std::set<std::pair<int, IndexSpec>> IndexesOf(const NestedSizes& sizes, const TierTable& tiers,
                                              int64_t items) {
  std::set<std::pair<int, IndexSpec>> indexes;
  for (const int dim : sizes.values()) {
    indexes.emplace(dim, Resolved(IndexSpec(), dim, items));
    for (const Tier& tier : tiers.tiers()) {
      if (dim >= tier.narrowest() && dim <= tier.dim) {
        indexes.emplace(dim, Resolved(tier.index, dim, items));
      }
    }
  }
  return indexes;
}

ModelMemory EstimateModelMemory(const NestedSizes& sizes, int levels, const TierTable& tiers,
                                int64_t items, uint64_t mapped_bytes, uint64_t field_bytes,
                                const ItemsHeld& held) {
  ModelMemory memory{.mapped_bytes = mapped_bytes, .field_bytes = field_bytes};
  const auto values =
      static_cast<uint64_t>(items + 1) * static_cast<uint64_t>(sizes.end(levels - 1));
  if (!held.searched) {
    memory.mapped_bytes -= std::min(memory.mapped_bytes, 4 * values);
    return memory;
  }
  if (held.storage == ItemStorage::kFloat16) {
    memory.mapped_bytes -= std::min(memory.mapped_bytes, 4 * values);
    (held.in_files ? memory.mapped_bytes : memory.index_bytes) += 2 * values;
  }
  const auto all = static_cast<uint64_t>(items);
  bool any_nested = false;
  for (const auto& [dim, spec] : IndexesOf(sizes.Prefix(levels), tiers, items)) {
    const auto columns = static_cast<uint64_t>(dim);
    if (spec.factory == kNestedFactory) {
      memory.index_bytes += (columns + kNestedItemBytes) * all;
      any_nested = true;
    } else if (spec.factory == "Flat") {
      memory.index_bytes += 4 * columns * all;
    } else if (const auto coded = ParseCodedIndex(spec.factory, columns); coded.has_value()) {
      const uint64_t an_item = coded->code_bytes + (coded->lists > 0 ? kIdBytes : 0);
      memory.index_bytes += (coded->grows ? 2 : 1) * an_item * all + 4 * columns * coded->lists;
      const auto training =
          static_cast<uint64_t>(TrainingItems(items, static_cast<int64_t>(coded->lists)));
      const uint64_t sample = kItemsPerCentre * coded->lists;
      if (coded->trained) {
        memory.building_bytes += 4 * columns * (training + (sample < training ? sample : 0));
      }
    } else {
      memory.index_bytes += (4 * columns + kOtherItemBytes) * all;
    }
  }
  if (any_nested) memory.building_bytes += kNestedScratchBytes;
  return memory;
}

uint64_t EstimateReducedBytes(const ModelInfo& info, const NestedSizes& sizes,
                              const TierTable& tiers) {
  const auto recipe = nlohmann::json::parse(info.recipe_json, nullptr, /*allow_exceptions=*/false);
  int64_t features = 0;
  for (const ModalityInfo& modality : info.modalities) features += modality.width;
  // Recipes of nestrec 0.1.0 may lack it: their items had none.
  const bool residual = recipe.is_object() && recipe.contains("item_residual") &&
                        recipe["item_residual"] != nlohmann::json(false);
  if (features == 0 || residual) return 0;
  int64_t bytes = 0;
  for (const auto& [dim, spec] : IndexesOf(sizes, tiers, info.items)) {
    if (spec.factory == kNestedFactory) bytes += ReducedView::BytesFor(dim, info.items, features);
  }
  return static_cast<uint64_t>(bytes);
}

absl::Status CheckMemory(const MemoryRequest& request, std::span<const MemoryLimit> limits) {
  const ModelMemory& model = request.models.back();
  for (const MemoryLimit& limit : limits) {
    const uint64_t need = NeedOf(request, model, limit);
    if (need <= limit.left_bytes) continue;
    std::string message = absl::StrCat(request.path, " at --max-dim ", request.dims.back(),
                                       " needs ", Amount(need), " more (");
    if (!limit.counts_mappings) {
      absl::StrAppend(&message, "weights and vectors ", Amount(model.mapped_bytes), ", ");
    }
    absl::StrAppend(&message, "indexes ", Amount(model.index_bytes), ", catalogue fields ",
                    Amount(model.field_bytes));
    const auto add = [&](absl::string_view what, uint64_t bytes) {
      if (bytes >= kMiB / 2) absl::StrAppend(&message, ", ", what, " ", Amount(bytes));
    };
    add("building indexes", model.building_bytes);
    add("session states up to", request.state_bytes);
    add("calls up to", request.call_bytes);
    if (!limit.counts_mappings) add("the models in use", request.held_bytes);
    absl::StrAppend(&message, "), but of ", limit.name, ", ", Amount(limit.limit_bytes), ", only ",
                    Amount(limit.left_bytes), " is left; ");
    std::optional<int> widest;
    for (size_t i = 0; i + 1 < request.models.size(); ++i) {
      if (Fits(request, request.models[i], limits)) widest = request.dims[i];
    }
    if (widest.has_value()) {
      absl::StrAppend(&message, "--max-dim ", *widest, " would fit; or give it more memory");
    } else {
      message += "no --max-dim of this model would fit: give it more memory";
    }
    if (request.state_bytes > 0) message += ", lower --session-state-bytes";
    if (request.call_bytes > 0) message += ", lower --max-call-memory";
    message += ", or start with --memory-limit none where this estimate is wrong";
    return absl::ResourceExhaustedError(message);
  }
  return absl::OkStatus();
}

absl::Status MemoryBudget::CheckLimit(absl::string_view limit) {
  uint64_t bytes = 0;
  if (limit == "auto" || limit == "none" || (absl::SimpleAtoi(limit, &bytes) && bytes > 0)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--memory-limit: '", limit, "' is not auto, none or a number of bytes such as 4294967296"));
}

MemoryBudget::MemoryBudget(Options options)
    : options_(std::move(options)), held_(std::make_shared<Held>()) {}

absl::StatusOr<ModelMemory> MemoryBudget::Check(const CheckpointShape& shape,
                                                const TierTable& tiers, const ItemsHeld& held,
                                                uint64_t field_bytes,
                                                uint64_t reduced_bytes) const {
  MemoryRequest request{.path = shape.path,
                        .dims = shape.sizes.values(),
                        .models = {},
                        .state_bytes = options_.state_bytes ? options_.state_bytes() : 0,
                        .call_bytes = options_.call_bytes,
                        .held_bytes = held_->mapped_bytes.load()};
  for (int levels = 1; levels <= shape.sizes.levels(); ++levels) {
    request.models.push_back(EstimateModelMemory(shape.sizes, levels, tiers, shape.items,
                                                 shape.level_bytes[static_cast<size_t>(levels) - 1],
                                                 field_bytes, held));
  }
  std::vector<MemoryLimit> limits;
  uint64_t bytes = 0;
  if (absl::SimpleAtoi(options_.limit, &bytes)) {
    limits.push_back({.name = "--memory-limit",
                      .limit_bytes = bytes,
                      .left_bytes = bytes - std::min(bytes, options_.anonymous_bytes())});
  } else if (options_.limit == "auto") {
    limits = options_.limits();
  }
  NESTREC_RETURN_IF_ERROR(CheckMemory(request, limits));
  ModelMemory model = request.models.back();
  model.reduced_bytes = reduced_bytes;
  // The models in use are gone when the next one comes, and leave it their room.
  ModelMemory with_next = model;
  with_next.index_bytes += request.models.back().total() -
                           std::min(request.models.back().total(), held_->total_bytes.load());
  if (!Fits(request, with_next, limits)) model.reduced_bytes = 0;
  return model;
}

absl::Status MemoryBudget::Check(const CheckpointShape& shape, const TierTable& tiers,
                                 const ItemsHeld& held) const {
  return Check(shape, tiers, held, 0, 0).status();
}

absl::StatusOr<MemoryBudget::Reservation> MemoryBudget::Reserve(
    const Checkpoint& checkpoint, const TierTable& tiers,
    const std::vector<std::string>& filter_fields, const ItemsHeld& items) const {
  const Catalogue& catalogue = *checkpoint.catalogue();
  const uint64_t fields = items.searched ? FieldBytes(catalogue, filter_fields) : 0;
  const uint64_t reduced =
      items.searched ? EstimateReducedBytes(checkpoint.info(), checkpoint.sizes(), tiers) : 0;
  NESTREC_ASSIGN_OR_RETURN(const ModelMemory model,
                           Check(checkpoint.shape(), tiers, items, fields, reduced));
  held_->mapped_bytes.fetch_add(model.mapped_bytes);
  held_->total_bytes.fetch_add(model.total());
  const auto give_back = [held = held_, mapped = model.mapped_bytes,
                          total = model.total()](const void*) {
    held->mapped_bytes.fetch_sub(mapped);
    held->total_bytes.fetch_sub(total);
  };
  return Reservation{.model = model, .held = std::shared_ptr<const void>(nullptr, give_back)};
}

}  // namespace nestrec

#include "server/snapshot.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/mapping_guard.h"
#include "base/status_macros.h"
#include "index/cosine_index.h"
#include "index/half_levels.h"
#include "index/nested_builder.h"
#include "model/metrics.h"
#include "server/catalogue_attributes.h"
#include "server/clock.h"
#include "server/index_builder.h"

namespace nestrec {
namespace {

std::string Seconds(Instant from, Instant to) {
  return absl::StrFormat("%.3f", absl::ToDoubleSeconds(Between(from, to)));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Snapshot>> Snapshot::Load(const Options& options,
                                                               const Log& log) {
  const Clock clock = SteadyClock();
  const Instant start = clock();
  const ItemsHeld held = {.storage = options.item_storage,
                          .in_files = !options.index_folder.empty(),
                          .searched = !options.encode_only};
  if (options.memory != nullptr) {
    NESTREC_ASSIGN_OR_RETURN(const CheckpointShape shape,
                             Checkpoint::ReadShape(options.path, options.max_dim));
    NESTREC_ASSIGN_OR_RETURN(const TierTable tiers, TierTable::Create(options.tiers, shape.sizes));
    NESTREC_RETURN_IF_ERROR(options.memory->Check(shape, tiers, held));
  }
  NESTREC_ASSIGN_OR_RETURN(
      std::shared_ptr<const Checkpoint> checkpoint,
      Checkpoint::Open(options.path, {.max_dim = options.max_dim, .verify = true}));
  const ModelInfo& info = checkpoint->info();
  const Architecture& architecture = checkpoint->view().architecture;
  const char* constant_step = architecture.constant_time_step() ? "true" : "false";
  log.Info("model_loaded", {{"path", options.path},
                            {"name", info.name},
                            {"version", info.version},
                            {"items", info.items},
                            {"sizes", checkpoint->sizes().ToString()},
                            {"mixer", Describe(architecture)},
                            {"constant_time_step", constant_step},
                            {"seconds", Seconds(start, clock())}});

  NESTREC_ASSIGN_OR_RETURN(TierTable tiers, TierTable::Create(options.tiers, checkpoint->sizes()));
  std::shared_ptr<Snapshot> snapshot(new Snapshot(checkpoint, std::move(tiers)));
  if (options.memory != nullptr) {
    NESTREC_ASSIGN_OR_RETURN(
        MemoryBudget::Reservation reserved,
        options.memory->Reserve(*checkpoint, snapshot->tiers_, options.tiers.filter_fields, held));
    log.Info("model_memory", {{"mapped_bytes", reserved.model.mapped_bytes},
                              {"index_bytes", reserved.model.index_bytes},
                              {"field_bytes", reserved.model.field_bytes},
                              {"building_bytes", reserved.model.building_bytes},
                              {"reduced_bytes", reserved.model.reduced_bytes}});
    snapshot->reduce_ = reserved.model.reduced_bytes > 0;
    snapshot->memory_ = std::move(reserved.held);
  }
  NESTREC_ASSIGN_OR_RETURN(snapshot->encoder_, Encoder::Create(checkpoint->view(), checkpoint));
  if (options.encode_only) {
    snapshot->SetItems(std::make_shared<const ItemView>(snapshot->catalogue()));
  } else {
    NESTREC_RETURN_IF_ERROR(snapshot->ReadCatalogue(options, log));
  }
  snapshot->ReadQuality();
  snapshot->costs_ = std::make_unique<CostModel>(checkpoint->sizes(), options.clock);
  snapshot->holds_ = std::make_unique<WidthHold>(snapshot->tiers_.tiers().size());
  if (options.item_storage == ItemStorage::kFloat16) {
    NESTREC_RETURN_IF_ERROR(snapshot->RoundItems(options, log));
  }
  if (!options.encode_only) NESTREC_RETURN_IF_ERROR(snapshot->BuildIndexes(options, log));
  if (options.encode_only || options.item_storage == ItemStorage::kFloat16) {
    snapshot->ReleaseItems();
  }
  if (options.sessions) {
    NESTREC_RETURN_IF_ERROR(snapshot->MakeStepper(log));
  }
  return snapshot;
}

absl::Status Snapshot::MakeStepper(const Log& log) {
  absl::StatusOr<std::unique_ptr<const Stepper>> stepper = Stepper::Create(encoder_.get());
  if (absl::IsFailedPrecondition(stepper.status())) {
    log.Info("session_steps", {{"from", "the whole history"}, {"why", stepper.status().message()}});
    return absl::OkStatus();
  }
  NESTREC_RETURN_IF_ERROR(stepper.status());
  stepper_ = *std::move(stepper);
  int runs_on = 0;
  for (int levels = 1; levels <= sizes().levels(); ++levels) {
    runs_on = stepper_->runs_on(levels) ? sizes().end(levels - 1) : runs_on;
  }
  // Beyond max_len events, wider answers compute the window again.
  log.Info("session_steps", {{"from", "the last event"}, {"beyond_max_len_up_to_dim", runs_on}});
  return absl::OkStatus();
}

SessionModel Snapshot::session_model() const {
  uint64_t number = 0;
  for (const char digit : version()) {  // 16 hex digits
    number =
        number << 4 | static_cast<uint64_t>(absl::ascii_isdigit(static_cast<unsigned char>(digit))
                                                ? digit - '0'
                                                : digit - 'a' + 10);
  }
  return {.encoder = encoder_.get(), .stepper = stepper_.get(), .version = number};
}

absl::Status Snapshot::ReadCatalogue(const Options& options, const Log& log) {
  const Clock clock = SteadyClock();
  const Instant start = clock();
  NESTREC_ASSIGN_OR_RETURN(CatalogueAttributes attributes,
                           ReadAttributes(catalogue(), options.tiers.filter_fields));
  attributes_ = std::move(attributes.table);
  filter_fields_ = options.tiers.filter_fields;
  SetItems(std::make_shared<const ItemView>(catalogue()));
  const std::vector<std::string> fields = attributes_.FieldNames();
  log.Info("catalogue_read", {{"filter_fields", fields.size()},
                              {"bytes", attributes_.bytes()},
                              {"seconds", Seconds(start, clock())}});
  for (const std::string& name : options.tiers.filter_fields) {
    if (!attributes_.Find(name).has_value()) {
      log.Warning("filter_field_missing",
                  {{"field", name}, {"why", "no item of the catalogue has it"}});
    }
  }
  if (attributes.dropped_fields > 0) {
    log.Warning("filter_fields_dropped",
                {{"fields", attributes.dropped_fields},
                 {"limit", AttributeTable::kMaxFields},
                 {"cure", "list those that requests need as filter_fields in the config"}});
  }
  return absl::OkStatus();
}

std::shared_ptr<const ItemView> Snapshot::items() const {
  const MutexLock lock(items_mutex_);
  return items_;
}

void Snapshot::SetItems(std::shared_ptr<const ItemView> items) const {
  {
    const MutexLock lock(items_mutex_);
    items_.swap(items);
  }
  // What was there before goes here, outside the lock that requests take.
}

// Log events: items_rounded or, from their files, rounded_items_loaded; rounded_items_not_loaded
// and rounded_items_not_saved, with the reason.
absl::Status Snapshot::RoundItems(const Options& options, const Log& log) {
  const Clock clock = SteadyClock();
  const Instant start = clock();
  absl::StatusOr<HalfLevels> rounded;
  if (options.index_folder.empty()) {
    rounded = RoundLevels(item_vectors_);
  } else {
    // What is wrong with the folder shows again when the files are written.
    MakeDirectories(options.index_folder).IgnoreError();
    rounded = LoadOrRoundLevels(item_vectors_, options.index_folder, version());
  }
  if (!rounded.ok()) {
    return absl::Status(
        rounded.status().code(),
        absl::StrCat(options.path, ", --item-storage: ", rounded.status().message()));
  }
  const bool loaded = !options.index_folder.empty() && rounded->load.ok();
  if (!loaded && !options.index_folder.empty() && !absl::IsNotFound(rounded->load)) {
    log.Warning("rounded_items_not_loaded", {{"why", rounded->load.message()}});
  }
  if (!rounded->save.ok()) {
    log.Warning("rounded_items_not_saved",
                {{"why", rounded->save.message()}, {"then", "they serve from memory"}});
  }
  item_vectors_ = std::move(rounded->vectors);
  item_vectors_owner_ = std::move(rounded->owner);
  int64_t bytes = 0;
  for (const auto& level : item_vectors_.halves) {
    bytes += static_cast<int64_t>(level.size_bytes());
  }
  log.Info(loaded ? "rounded_items_loaded" : "items_rounded",
           {{"storage", "float16"}, {"bytes", bytes}, {"seconds", Seconds(start, clock())}});
  return absl::OkStatus();
}

// The checkpoint's vectors were read to verify and perhaps round them; from now on only the items
// of histories are.
void Snapshot::ReleaseItems() const {
  for (const std::span<const float> level : checkpoint_->view().items) {
    ReleasePages(std::as_bytes(level));
  }
}

absl::Status Snapshot::BuildIndexes(const Options& options, const Log& log) {
  for (const IndexKey& key : IndexesOf(sizes(), tiers_, catalogue().size())) {
    indexes_.emplace(key, nullptr);
  }
  using Slot = std::pair<const IndexKey, std::unique_ptr<const ItemIndex>>;
  std::vector<Slot*> slots;
  for (Slot& slot : indexes_) {
    slots.push_back(&slot);
  }
  std::reverse(slots.begin(), slots.end());  // the widest take longest; begin with them

  std::vector<float> queries;
  if (std::any_of(slots.begin(), slots.end(),
                  [](const Slot* slot) { return slot->first.second.factory == kNestedFactory; })) {
    NESTREC_ASSIGN_OR_RETURN(queries, ExampleQueries(*encoder_));
  }
  const IndexSource source{.vectors = item_vectors(),
                           .owner = item_vectors_owner_,
                           .version = version(),
                           .folder = options.index_folder,
                           .queries = queries,
                           .reduce = reduce_};
  std::vector<absl::Status> statuses(slots.size());
  std::atomic<size_t> next =
      0;  // which slot is free; every slot is written by the thread that drew it
  const int threads = options.threads;
  const int workers = std::clamp(threads, 1, static_cast<int>(slots.size()));
  const auto work = [&] {
    omp_set_num_threads(std::max(1, threads / workers));
    for (size_t i = next.fetch_add(1); i < slots.size(); i = next.fetch_add(1)) {
      const auto& [dim, spec] = slots[i]->first;
      absl::StatusOr<std::unique_ptr<const ItemIndex>> index = MakeIndex(source, dim, spec, log);
      statuses[i] = index.status();
      if (!index.ok() && !options.tiers.source.empty()) {
        statuses[i] = absl::Status(index.status().code(), absl::StrCat(options.tiers.source, ": ",
                                                                       index.status().message()));
      }
      if (index.ok()) {
        slots[i]->second = *std::move(index);
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    for (int i = 0; i < workers; ++i) {
      pool.emplace_back(work);
    }
  }
  for (const absl::Status& status : statuses) {
    NESTREC_RETURN_IF_ERROR(status);
  }
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const ItemNorms> norms,
                           ItemNorms::Create(source.vectors));
  for (int levels = 1; levels <= sizes().levels(); ++levels) {
    cosine_indexes_.push_back(std::make_unique<CosineIndex>(source.vectors, levels, norms));
  }
  return absl::OkStatus();
}

const ItemIndex& Snapshot::index(int dim, const IndexSpec& spec) const {
  return *indexes_.at(KeyOf(dim, spec));
}

Snapshot::IndexKey Snapshot::KeyOf(int dim, const IndexSpec& spec) const {
  return {dim, Resolved(spec, dim, catalogue().size())};
}

void Snapshot::ReadQuality() {
  const ModelInfo& info = checkpoint_->info();
  const std::vector<SizeMetrics>& metrics = info.test.empty() ? info.validation : info.test;
  constexpr size_t kAtTen = 1;
  static_assert(kMetricCutoffs[kAtTen] == 10);
  if (metrics.empty() || !(metrics.back().metrics.recall[kAtTen] > 0)) {
    return;
  }
  for (const int dim : sizes().values()) {
    for (const SizeMetrics& of_size : metrics) {
      if (of_size.dim == dim) {
        quality_.push_back(of_size.metrics.recall[kAtTen] / metrics.back().metrics.recall[kAtTen]);
      }
    }
  }
  if (quality_.size() != sizes().values().size()) {
    quality_.clear();
  }
}

bool Snapshot::intact() const {
  if (!AnyLostBytes()) return true;
  const auto lost = [](const auto& levels) {
    return !levels.empty() && LostBytes(levels.front().data());
  };
  // All of a checkpoint is one mapping; rounded items may be another, and each kept index.
  return !lost(checkpoint_->view().items) && !lost(item_vectors_.levels) &&
         !lost(item_vectors_.halves) &&
         std::all_of(indexes_.begin(), indexes_.end(),
                     [](const auto& each) { return each.second->intact(); });
}

void Snapshot::GiveUp() const { MarkLost(checkpoint_->view().items.front().data()); }

int64_t Snapshot::index_bytes(int dim) const {
  int64_t bytes = 0;
  for (const auto& [key, index] : indexes_) {
    bytes += key.first == dim ? index->bytes() : 0;
  }
  for (const auto& index : cosine_indexes_) {
    bytes += index->dim() == dim ? index->bytes() : 0;
  }
  return bytes;
}

}  // namespace nestrec

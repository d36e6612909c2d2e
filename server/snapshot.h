// What requests run on: one model, ready to serve. Immutable; requests share it by pointer, so that
// a server can move to the next one while they finish on this.
//
//   NESTREC_ASSIGN_OR_RETURN(auto snapshot, Snapshot::Load({.path = "m.safetensors"}, log));
//   const ItemIndex& index = snapshot->index(64, IndexSpec{});
//
// Thread safety: immutable once loaded, but for costs(), holds() and items(), which may be used
// from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "index/attributes.h"
#include "index/item_index.h"
#include "index/level_vectors.h"
#include "model/checkpoint.h"
#include "model/encoder.h"
#include "server/clock.h"
#include "server/cost_model.h"
#include "server/live/item_view.h"
#include "server/log.h"
#include "server/memory_budget.h"
#include "server/mutex.h"
#include "server/session/session_manager.h"
#include "server/tiers.h"
#include "server/width_hold.h"

namespace nestrec {

class Snapshot {
 public:
  struct Options {
    std::string path;  // the checkpoint
    int max_dim = 0;   // load only the levels up to this size; 0: all
    TierSettings tiers;
    // Where indexes that take long to build are kept between runs; empty: nowhere.
    std::string index_folder;
    int threads = 1;  // that build indexes
    // What searches read, of the checkpoint's float32 vectors; float16 is kept in index_folder too.
    ItemStorage item_storage = ItemStorage::kFloat32;
    // Makes vectors alone: builds no index, reads no fields, and keeps of the items' vectors only
    // what histories touch. REQUIRES: item_storage is float32.
    bool encode_only = false;
    // Makes the recurrent step ready, where the model has one.
    bool sessions = false;
    Clock clock = SteadyClock();  // of costs()
    // Asked before anything is built, and told when the model goes; null: there is memory enough.
    std::shared_ptr<const MemoryBudget> memory = nullptr;
  };

  // Opens and verifies the checkpoint, reads its catalogue's fields, and builds an index for
  // every size and the tiers' own ones beside them, logging each
  // (server/index_builder.h); with encode_only neither fields nor indexes. Errors of
  // Checkpoint::Open, TierTable::Create, MemoryBudget::Reserve and MakeIndex, with the path, and of
  // RoundLevels where items are stored as float16.
  static absl::StatusOr<std::shared_ptr<const Snapshot>> Load(const Options& options,
                                                              const Log& log);

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const NestedSizes& sizes() const { return checkpoint_->sizes(); }
  const Catalogue& catalogue() const { return *checkpoint_->catalogue(); }
  const std::string& version() const { return checkpoint_->info().version; }
  // Whether it can search; else it has no attributes and no indexes.
  bool searches() const { return !indexes_.empty(); }
  // Of the checkpoint's items alone.
  const AttributeTable& attributes() const { return attributes_; }
  // The fields that filters may name; none: all.
  const std::vector<std::string>& filter_fields() const { return filter_fields_; }
  // All items as they are now: the checkpoint's, until somebody (server/live/live_items.h) says
  // otherwise. Never null.
  std::shared_ptr<const ItemView> items() const;
  // Requests that ask from now on get these. REQUIRES: a view of this catalogue, whose numbers are
  // as ItemView promises.
  void SetItems(std::shared_ptr<const ItemView> items) const;
  // The items' vectors as searches read them: the checkpoint's, or those rounded to float16.
  const LevelVectors& item_vectors() const { return item_vectors_; }
  const Encoder& encoder() const { return *encoder_; }
  // The model as sessions need it.
  SessionModel session_model() const;
  const TierTable& tiers() const { return tiers_; }
  // [sizes]: Recall@10 as a share of the model's widest size's, of the metrics that the checkpoint
  // holds (test, else validation); empty where it holds none.
  const std::vector<double>& quality() const { return quality_; }
  // REQUIRES: searches(), dim is one of sizes(), and spec is IndexSpec() or that of a tier whose
  // range holds dim.
  const ItemIndex& index(int dim, const IndexSpec& spec) const;
  // Items by cosine, at the first `levels` levels. REQUIRES: searches(), levels of sizes().
  const ItemIndex& cosine_index(int levels) const {
    return *cosine_indexes_[static_cast<size_t>(levels) - 1];
  }
  // What this model's widths cost on this machine, learned while it serves.
  CostModel& costs() const { return *costs_; }
  // Widths that time took from its requests, by the tiers' numbers.
  WidthHold& holds() const { return *holds_; }
  // Of all indexes of `dim`.
  int64_t index_bytes(int dim) const;

  // False once the files that it is mapped from have lost bytes (base/mapping_guard.h), or
  // GiveUp was called: answers that were computed until then may be wrong. It stays so.
  bool intact() const;
  // For who knows that something else has been written into the file.
  void GiveUp() const;

 private:
  using IndexKey = std::pair<int, IndexSpec>;  // dim, what to build, resolved

  Snapshot(std::shared_ptr<const Checkpoint> checkpoint, TierTable tiers)
      : checkpoint_(std::move(checkpoint)),
        item_vectors_{.sizes = checkpoint_->view().sizes,
                      .rows = checkpoint_->view().item_rows,
                      .levels = checkpoint_->view().items},
        item_vectors_owner_(checkpoint_),
        tiers_(std::move(tiers)) {}
  IndexKey KeyOf(int dim, const IndexSpec& spec) const;
  absl::Status ReadCatalogue(const Options& options, const Log& log);
  absl::Status RoundItems(const Options& options, const Log& log);
  void ReleaseItems() const;
  absl::Status BuildIndexes(const Options& options, const Log& log);
  void ReadQuality();
  absl::Status MakeStepper(const Log& log);

  bool reduce_ = false;                 // nested indexes may hold views in fewer columns
  std::shared_ptr<const void> memory_;  // its part of a budget; outlives what it is for
  std::shared_ptr<const Checkpoint> checkpoint_;
  LevelVectors item_vectors_;
  std::shared_ptr<const void> item_vectors_owner_;
  TierTable tiers_;
  std::vector<double> quality_;
  std::unique_ptr<CostModel> costs_;
  std::unique_ptr<WidthHold> holds_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Stepper> stepper_;  // null: none
  std::vector<std::string> filter_fields_;
  mutable Mutex items_mutex_;  // for the copy of a pointer alone
  mutable std::shared_ptr<const ItemView> items_ ABSL_GUARDED_BY(items_mutex_);
  AttributeTable attributes_;
  std::map<IndexKey, std::unique_ptr<const ItemIndex>> indexes_;
  std::vector<std::unique_ptr<const ItemIndex>> cosine_indexes_;  // by levels - 1
};

}  // namespace nestrec

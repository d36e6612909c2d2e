// Items that are upserted and removed while the server runs: kept in a file, and applied to every
// model that serves.
//
//   NESTREC_ASSIGN_OR_RETURN(auto live, LiveItems::Open({.folder = "/var/lib/nestrec/items"},
//   log)); live->Attach(snapshot);                    // before it serves; at every new model
//   live->Upsert(changes, *snapshot);          // when it returns, snapshot->items() has them
//   live->Remove({"N000431"}, /*restore=*/false);
//
// What is kept of an item is what was given, not what one model made of it: features and records.
// So a new model projects them in its own way, and an item that it cannot use (features of other
// modalities or widths, text without a text encoder) is reported and left out of that model, or, if
// the model has the item itself, served as the model has it, with the record that was given.
//
// An upsert holds until the item is upserted again, removed or restored, whatever models come: a
// model that was trained with the item since then serves it as it was upserted, until
// Remove(restore).
//
// The embedding of an item with features is their projection alone. Where a model has learned item
// residuals on top, an upserted item has none: a residual belongs to what users did with an item,
// and a checkpoint does not hold the features that would be needed to tell the residual of an item
// that it knows from the projection of what the item was then. An upsert without features keeps the
// embedding, residual included; this is what changes of price or stock should be.
//
// Durability: when Upsert or Remove returns ok, the change is on the disk.
//
// Thread safety: all methods may be called from any thread. Upsert, Remove and Attach run one after
// the other; they compute embeddings and write files, so that they belong on threads that may wait.
// Requests never wait for them.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "model/item_projection.h"
#include "model/prepare/text_encoder.h"
#include "nestrec/v1/stored_item.pb.h"
#include "server/live/item_log.h"
#include "server/live/item_view.h"
#include "server/log.h"
#include "server/snapshot.h"

namespace nestrec {

class LiveItems {
 public:
  struct Options {
    std::string folder;          // of this server alone; made when it is not there
    int64_t max_items = 10'000;  // upserted ones that are kept
    int64_t max_bytes = int64_t{1}
                        << 30;  // of what is kept of them, without what models make of it
  };

  // One item's upsert; what is not given stays as it is.
  struct Upserted {
    std::string id;
    std::optional<std::string> record;  // a JSON object
    std::vector<ModalityRow> features;  // all of them, where there are any
    bool encode_text = false;
  };
  struct UpsertOutcome {
    int64_t added = 0;    // that the model did not know
    int64_t changed = 0;  // that it knew
  };
  // What is wrong with one item of a call.
  struct BadItem {
    size_t index = 0;
    absl::Status why;
  };
  struct RemoveOutcome {
    int64_t removed = 0;          // that were listed, or with `restore` had changed
    std::vector<size_t> unknown;  // places in the list
  };

  // Reads what is kept. Errors of ItemLog::Open.
  static absl::StatusOr<std::unique_ptr<LiveItems>> Open(const Options& options, const Log& log);

  // Applies what is kept to a snapshot, which from then on follows every change as long as it
  // lives. Does nothing where it does already. Logs live_items with the counts, and
  // live_item_skipped for the first items that the model cannot use. kResourceExhausted: out of
  // memory.
  absl::Status Attach(const std::shared_ptr<const Snapshot>& snapshot);

  // All of them or, after an error, none. `model` is what they must be good for, an attached one.
  // `bad`: the items that are not, in which case the status is kInvalidArgument or, where the model
  // itself lacks something, kFailedPrecondition. kResourceExhausted, naming the limit: more items
  // or bytes than are kept, or the disk is full. kUnavailable: the file cannot be written.
  // REQUIRES: ids that are not empty and differ.
  absl::StatusOr<UpsertOutcome> Upsert(std::vector<Upserted> items, const Snapshot& model,
                                       std::vector<BadItem>& bad);

  // Removes items: they do not come back from any search that begins after this has returned. With
  // `restore` forgets what was upserted and removed of them: items of a model are as the model has
  // them, others are gone. Ids that no model knows are `unknown` and no error. Errors of the file
  // as in Upsert.
  absl::StatusOr<RemoveOutcome> Remove(std::span<const std::string> ids, bool restore);

  const Options& options() const { return options_; }
  // How many upserted items are kept.
  int64_t kept() const;

 private:
  struct Kept {
    v1::StoredItem item;
    uint64_t vector_changed = 0;  // generation in which features came last
  };
  // A model that follows.
  struct Model {
    std::weak_ptr<const Snapshot> snapshot;
    absl::flat_hash_map<std::string, int32_t>
        numbers;  // of items that its checkpoint does not have
    int32_t next = 0;
    // Numbers of removed items, with the generation from which on no view has them.
    std::deque<std::pair<uint64_t, int32_t>> freed;
    // Views that requests may still hold, with their generations.
    std::deque<std::pair<uint64_t, std::weak_ptr<const ItemView>>> old_views;
    std::optional<absl::StatusOr<TextEncoder>> text_encoder;  // once it was needed
    absl::flat_hash_map<std::string, std::string> skipped;    // why, by id
  };
  // An item's entry in a model's next view; no entry: it has none any more.
  struct Change {
    std::string id;
    std::shared_ptr<const LiveEntry> entry;
  };

  LiveItems(const Options& options, const Log& log) : options_(options), log_(log) {}

  // kInvalidArgument or kFailedPrecondition: the model cannot use it.
  static absl::StatusOr<std::shared_ptr<const LiveEntry>> EntryFor(const Kept& kept,
                                                                   const Snapshot& snapshot,
                                                                   Model& model);
  // Never fails: what the model cannot use is noted as skipped.
  Change ChangeFor(const std::string& id, const Kept* kept, const Snapshot& snapshot, Model& model);
  void Publish(const Snapshot& snapshot, Model& model, std::vector<Change> changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static std::optional<int32_t> NumberFor(const std::string& id, Model& model, uint64_t oldest);
  absl::Status CheckRoom(int64_t items, int64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Keep(const v1::StoredItems& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // In memory what Keep has put on the disk.
  void Remember(const v1::StoredItem& item, uint64_t vector_changed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CompactIfWorthwhile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RewriteLog() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::pair<std::shared_ptr<const Snapshot>, Model*>> Models()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const Log log_;
  mutable Mutex mutex_;
  std::unique_ptr<ItemLog> file_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, Kept> kept_ ABSL_GUARDED_BY(mutex_);  // by id
  int64_t upserted_ ABSL_GUARDED_BY(mutex_) = 0;                         // of kept_, not removed
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;                            // of kept_, as in the file
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Model> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec

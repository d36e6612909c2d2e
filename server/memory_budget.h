// Whether a model fits into the memory that the process may have, asked of its header before
// anything else is read, and again before its indexes are built: a model that does not is refused
// with the figures, instead of a server that is killed while it loads or later.
//
//   auto budget = std::make_shared<MemoryBudget>(MemoryBudget::Options{});
//   NESTREC_RETURN_IF_ERROR(budget->Check(shape, tiers));
//   NESTREC_ASSIGN_OR_RETURN(auto held, budget->Reserve(*checkpoint, tiers, filter_fields));
//
// What a model needs is the formula of docs/kubernetes.md, which tests compare with real servers.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/memory_limits.h"
#include "base/nested_sizes.h"
#include "index/level_vectors.h"
#include "model/checkpoint.h"
#include "server/tiers.h"

namespace nestrec {

// The indexes that a server builds, as (dim, resolved spec): one of every size, for requests that
// name their dim, and the tiers' own.
std::set<std::pair<int, IndexSpec>> IndexesOf(const NestedSizes& sizes, const TierTable& tiers,
                                              int64_t items);

// What a model takes, in bytes.
struct ModelMemory {
  uint64_t mapped_bytes = 0;    // weights and vectors, mapped from the file
  uint64_t index_bytes = 0;     // of all indexes
  uint64_t field_bytes = 0;     // the catalogue's fields, for filters
  uint64_t building_bytes = 0;  // for a while, on top: building indexes
  // Of views in fewer columns (index/reduced_view.h), at most; 0 where indexes are to have none.
  uint64_t reduced_bytes = 0;

  uint64_t total() const {
    return mapped_bytes + index_bytes + field_bytes + building_bytes + reduced_bytes;
  }
};

// How searches find the items' vectors, if there are any: else there are no indexes, and of the
// vectors only those of histories' items are read. Those of float16 take the place of the file's,
// which are read only for the items of histories; in files of their own they are mapped as those
// are.
struct ItemsHeld {
  ItemStorage storage = ItemStorage::kFloat32;
  bool in_files = true;
  bool searched = true;
};

// Of the first `levels` levels. `mapped_bytes` (of the file) and `field_bytes`: see ModelMemory.
ModelMemory EstimateModelMemory(const NestedSizes& sizes, int levels, const TierTable& tiers,
                                int64_t items, uint64_t mapped_bytes, uint64_t field_bytes,
                                const ItemsHeld& held = {});

// What views in fewer columns may take in all nested indexes; 0 where there are none. That the
// items are of lower rank than they are wide is said of models whose items are made of features
// alone.
uint64_t EstimateReducedBytes(const ModelInfo& info, const NestedSizes& sizes,
                              const TierTable& tiers);

// What a check is about.
struct MemoryRequest {
  std::string path;                 // of the checkpoint
  std::vector<int> dims;            // the model's loaded sizes, narrow to wide
  std::vector<ModelMemory> models;  // what each of them would take as --max-dim; the last is asked
  uint64_t state_bytes = 0;         // that session states may still grow by
  uint64_t call_bytes = 0;          // that connections and unfinished messages may take
  uint64_t held_bytes = 0;          // that other models in use have mapped
};

// Ok where it fits into every limit. kResourceExhausted with what is needed and of what, the limit
// and what is left of it, the widest dim that would fit, and what else can be done.
absl::Status CheckMemory(const MemoryRequest& request, std::span<const MemoryLimit> limits);

class MemoryBudget {
 public:
  struct Options {
    // "auto": what the operating system says; "none": nothing is refused; else a number of bytes
    // that the process may have.
    std::string limit = "auto";
    // Bytes that session states may still grow by; empty: 0.
    std::function<uint64_t()> state_bytes = {};
    uint64_t call_bytes = 0;  // that connections and unfinished messages may take
    std::function<std::vector<MemoryLimit>()> limits = [] { return ReadMemoryLimits(); };
    std::function<uint64_t()> anonymous_bytes = [] { return AnonymousBytes(); };
  };
  struct Reservation {
    ModelMemory model;
    std::shared_ptr<const void> held;  // the model's part, given back when it ends
  };

  // kInvalidArgument for a limit that is none of these.
  static absl::Status CheckLimit(absl::string_view limit);
  // REQUIRES: CheckLimit(options.limit).ok().
  explicit MemoryBudget(Options options);

  // Errors of CheckMemory, as far as the header tells: what the catalogue's fields take is known
  // later.
  absl::Status Check(const CheckpointShape& shape, const TierTable& tiers,
                     const ItemsHeld& held = {}) const;
  // Errors of CheckMemory. The model has reduced_bytes only where there is room for them and,
  // beside them, for a next version of the model: they are an extra, which refuses no model.
  absl::StatusOr<Reservation> Reserve(const Checkpoint& checkpoint, const TierTable& tiers,
                                      const std::vector<std::string>& filter_fields,
                                      const ItemsHeld& items = {}) const;

 private:
  // What the model would take at its widest, views of so many bytes included where there is room.
  absl::StatusOr<ModelMemory> Check(const CheckpointShape& shape, const TierTable& tiers,
                                    const ItemsHeld& held, uint64_t field_bytes,
                                    uint64_t reduced_bytes) const;

  const Options options_;
  // Of reservations, which may outlive the budget; any order will do: models load one at a time.
  struct Held {
    std::atomic<uint64_t> mapped_bytes = 0;
    std::atomic<uint64_t> total_bytes = 0;
  };
  const std::shared_ptr<Held> held_;
};

}  // namespace nestrec

// What a live index (live_index.h) holds between two compactions: a base that its indexes were
// built over, and the rows that came since. Only files of index/live_* include this.
//
// Rows carry the numbers of the changes that brought and ended them, so that a search, which begins
// by reading the number of the last change, sees the items as they were after that change, while
// writers go on:
//
//   a row is seen at `now` when born <= now < died
//
// A row's values are written before the change is published (release) and read after (acquire), and
// are never changed again, but for `died`, which is atomic and which no reader at `now` minds while
// it exceeds `now`.
//
// Thread safety: the const methods run while one writer at a time, locked by the owner, calls the
// others.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "index/item_filter.h"
#include "index/item_index.h"
#include "index/level_vectors.h"

namespace nestrec::live {

// The number of a change; the first is 1.
using Change = uint64_t;
inline constexpr Change kNever = std::numeric_limits<Change>::max();

// Vectors that indexes are built over. Row r of `vectors` is item `items[r]`; ascending, items[0]
// is the padding's 0. No rows but the padding: no indexes.
struct Base {
  LevelVectors vectors;
  std::shared_ptr<const void> owner;
  std::vector<int32_t> items;
  std::vector<std::unique_ptr<const ItemIndex>> indexes;  // per width
  int64_t owned_bytes = 0;                                // of vectors, where they are a copy

  int64_t rows() const { return static_cast<int64_t>(items.size()) - 1; }  // without padding
  // The row of an item, 0 when it has none.
  int64_t RowOf(int32_t item) const;
};

// Which base rows were alive at some change.
struct AliveRows {
  ItemFilter rows;  // over base rows
  int64_t dead = 0;
};

class Epoch {
 public:
  // At most `capacity` rows can be added.
  Epoch(Base base, int64_t capacity);

  const Base& base() const { return base_; }
  // The last change that is complete. What a search begins with.
  Change now() const { return now_.load(std::memory_order_acquire); }
  // Base rows that died, now or since; at least those of any now() read before.
  int64_t base_dead() const { return base_dead_.load(std::memory_order_acquire); }
  bool BaseRowIsAlive(int64_t row, Change now) const {
    return died_[static_cast<size_t>(row)].load(std::memory_order_relaxed) > now;
  }
  int64_t bytes() const;

  // Calls use(item, vector) for the added rows that are alive at `now`, in no order. `now` is what
  // now() gave.
  template <typename Use>
  void ForEachAdded(Change now, Use&& use) const {
    const int64_t count = added_.load(std::memory_order_acquire);
    for (int64_t row = 0; row < count; ++row) {
      const Row& meta = MetaOf(row);
      if (meta.born <= now && meta.died.load(std::memory_order_relaxed) > now) {
        use(meta.item, VectorOf(row));
      }
    }
  }

  // The writer's part: changes between Begin() and Publish() become visible together.
  void Begin() { change_ = now() + 1; }
  void Publish() { now_.store(change_, std::memory_order_release); }
  int64_t added() const { return added_.load(std::memory_order_relaxed); }
  // Makes room for `changes` additions and ends, which then cannot fail. Throws std::bad_alloc.
  void Reserve(int64_t changes);
  // Adds a row, rounded to float16 where the base's are. REQUIRES: reserved, and fewer than
  // `capacity` were added.
  void Add(int32_t item, std::span<const float> vector);
  // Ends the item's row; false when it has none.
  bool End(int32_t item);
  bool Has(int32_t item) const;
  // Of an item whose row was added here and is alive.
  std::optional<std::span<const float>> AddedVectorOf(int32_t item) const;
  AliveRows Alive() const;

 private:
  static constexpr int64_t kChunkRows = 256;
  struct Row {
    int32_t item = 0;
    Change born = 0;
    std::atomic<Change> died{kNever};
  };
  struct Chunk {
    std::vector<Row> rows;       // [kChunkRows]
    std::vector<float> vectors;  // [kChunkRows, D]
  };

  const Row& MetaOf(int64_t row) const {
    return chunks_[static_cast<size_t>(row / kChunkRows)]
        ->rows[static_cast<size_t>(row % kChunkRows)];
  }
  std::span<const float> VectorOf(int64_t row) const {
    const Chunk& chunk = *chunks_[static_cast<size_t>(row / kChunkRows)];
    return std::span(chunk.vectors).subspan(static_cast<size_t>(row % kChunkRows) * dim_, dim_);
  }

  Base base_;
  size_t dim_;                                  // D
  std::vector<std::atomic<Change>> died_;       // per base row
  std::vector<std::unique_ptr<Chunk>> chunks_;  // as many as can be; filled as rows come
  std::atomic<int64_t> added_{0};               // rows that are complete
  std::atomic<int64_t> base_dead_{0};
  std::atomic<Change> now_{0};
  // The writer's own.
  Change change_ = 0;
  absl::flat_hash_map<int32_t, int64_t> added_rows_;  // items that are alive here
  std::vector<int32_t> dead_rows_;                    // of the base
};

// What a new base is built from.
struct FoldedRows {
  LevelVectors vectors;
  std::vector<int32_t> items;         // by row; items[0] is the padding's 0
  std::shared_ptr<const void> owner;  // of the vectors
  int64_t bytes = 0;                  // that the owner holds
};

// The rows of `epoch` that are alive at `now`, copied in the order of their items. `now` is what
// epoch.now() gave; changes may go on. Throws std::bad_alloc.
FoldedRows Fold(const Epoch& epoch, Change now);

}  // namespace nestrec::live

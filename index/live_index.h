// An index whose items change while it is searched: a base that an index of any kind was built
// over, the changes since, which are searched exhaustively, and a compaction that folds them into a
// new base.
//
//   NESTREC_ASSIGN_OR_RETURN(auto live, LiveIndex::Create(vectors, owner, {.widths = {{2,
//   build}}})); NESTREC_RETURN_IF_ERROR(live->Upsert(7, vector));
//   NESTREC_RETURN_IF_ERROR(live->Remove(9));
//   NESTREC_ASSIGN_OR_RETURN(SearchResult result, live->Search(0, query, {.k = 10}));
//
// A search sees the items as they were at one moment after it began: every change whose call
// had returned, and of a change whole or nothing. So a removed item never comes back from a search
// that begins after Remove returned. An answer is exact where the base's is.
//
// Numbers: items keep theirs, 1 to highest(), through every compaction. A new item gets
// highest() + 1. The number of a removed item stays free until it is upserted again; numbers end at
// 2^31 - 2.
//
// Thread safety: everything may run in parallel. A search takes one lock, to copy a pointer; it
// never waits for a change or a compaction. Changes run one after the other.
//
// Memory: at most `max_changes` added rows (times 2 while a compaction runs) beside the base, and
// two bases while one is being replaced. What a search still reads is freed when it ends.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "index/item_index.h"
#include "index/level_vectors.h"
#include "index/live_epoch.h"

namespace nestrec {

class LiveIndex {
 public:
  // Builds an index over the first `levels` levels; `owner` keeps the vectors alive.
  using Build = std::function<absl::StatusOr<std::unique_ptr<const ItemIndex>>(
      const LevelVectors& vectors, int levels, std::shared_ptr<const void> owner)>;
  struct Width {
    int levels = 0;
    Build build;
  };
  struct Options {
    std::vector<Width> widths;  // at least one; searches name them by their place
    // Added and ended rows before they are folded in; 0: a 64th of the items, 1,024 to 16,384. More
    // make compactions rarer and searches slower.
    int64_t max_changes = 0;
    // Compacts in a thread of its own. Otherwise the change that reaches max_changes does, before
    // its call returns.
    bool background = false;
  };
  // What happens to one item: a new vector, [D], or none: it is removed.
  struct ItemChange {
    int32_t item = 0;
    std::optional<std::span<const float>> vector;
    bool must_be_new = false;  // kAlreadyExists when the number was ever taken
  };

  // `owner` keeps the vectors' memory alive; null when the caller does. kInvalidArgument and what
  // `build` returns.
  static absl::StatusOr<std::unique_ptr<LiveIndex>> Create(const LevelVectors& vectors,
                                                           std::shared_ptr<const void> owner,
                                                           Options options);
  ~LiveIndex();
  LiveIndex(const LiveIndex&) = delete;
  LiveIndex& operator=(const LiveIndex&) = delete;

  // Makes all the changes at once, in their order, or none. kInvalidArgument: a vector of another
  // length than D or with a value that is not finite (or not of float16, where the vectors are), a
  // number outside 1 to highest() + 1 (counting
  // those before it in the list), more changes than max_changes. kNotFound: there is no such
  // item to remove. kResourceExhausted: out of memory or numbers, or so many changes wait for a
  // compaction that failed; the message says why.
  absl::Status Apply(std::span<const ItemChange> changes);
  // One of them. An item that exists gets the new vector.
  absl::Status Upsert(int32_t item, std::span<const float> vector);
  absl::Status Remove(int32_t item);
  // A new item; its number.
  absl::StatusOr<int32_t> Insert(std::span<const float> vector);

  // As ItemIndex::Search, at options.widths[width]; but a filter may be over fewer items than
  // highest(): those above came after it was made, and are not allowed.
  absl::StatusOr<SearchResult> Search(size_t width, std::span<const float> query,
                                      const SearchOptions& options) const;

  // Folds the changes in now. What it cannot do (build, memory) it returns, and the old base serves
  // on.
  absl::Status Compact();

  // The highest number that an item has had.
  int32_t highest() const;
  // How many items there are.
  int64_t size() const;
  // Of everything that it holds but the vectors that it was created from.
  int64_t bytes() const;
  // How many compactions there were, failed ones not counted, and the last one's outcome.
  int64_t compactions() const;
  absl::Status last_compaction() const;

 private:
  // What searches begin with: both of one moment, the rows not younger than the epoch's now().
  struct Published {
    std::shared_ptr<const live::Epoch> epoch;
    std::shared_ptr<const live::AliveRows> alive;
  };

  LiveIndex(Options options, NestedSizes sizes);
  absl::StatusOr<live::Base> BuildBase(live::FoldedRows rows) const;
  absl::Status Check(std::span<const ItemChange> changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_);
  absl::Status MakeRoom(int64_t rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_);
  absl::Status CompactLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_);
  // Lets searches begin with the writer's epoch as it is.
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_);
  int64_t ChangesIn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(writer_);
  void RunBackground();
  absl::StatusOr<SearchResult> SearchPublished(size_t width, std::span<const float> query,
                                               const SearchOptions& options) const;
  Published published() const;

  const Options options_;
  const NestedSizes sizes_;

  // Locked for a change, and for the beginning and end of a compaction.
  mutable Mutex writer_;
  ConditionVariable changed_;  // a compaction is due or done, or the index goes
  std::shared_ptr<live::Epoch> epoch_ ABSL_GUARDED_BY(writer_);
  int64_t published_dead_ ABSL_GUARDED_BY(writer_) = 0;
  bool is_compacting_ ABSL_GUARDED_BY(writer_) = false;
  bool is_due_ ABSL_GUARDED_BY(writer_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(writer_) = false;
  int64_t due_at_ ABSL_GUARDED_BY(writer_) = 0;  // so many changes make a compaction due
  // Items that changed since the running compaction began.
  absl::flat_hash_set<int32_t> touched_ ABSL_GUARDED_BY(writer_);
  int32_t highest_ ABSL_GUARDED_BY(writer_) = 0;
  int64_t size_ ABSL_GUARDED_BY(writer_) = 0;
  int64_t compactions_ ABSL_GUARDED_BY(writer_) = 0;
  absl::Status last_compaction_ ABSL_GUARDED_BY(writer_);

  mutable Mutex pointer_;  // for the copy of a pointer alone
  Published published_ ABSL_GUARDED_BY(pointer_);
  std::atomic<int32_t> published_highest_{0};

  std::jthread background_;  // last: it uses the others
};

}  // namespace nestrec

#include "index/live_index.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/exhaustive_search.h"
#include "index/score.h"

namespace nestrec {
namespace {

constexpr int64_t kLeastChanges = 1024;
constexpr int64_t kMostChanges = 16'384;
// Ended base rows that a search sorts out of its candidates before a new filter leaves them out.
constexpr int64_t kDeadBeforeFilter = 128;
constexpr int32_t kHighestNumber = std::numeric_limits<int32_t>::max() - 1;

// The base rows of the items that a filter allows.
ItemFilter RowsOf(const ItemFilter& filter, const live::Base& base) {
  const bool rows_are_items = base.items.back() == base.rows();
  if (rows_are_items) {
    return filter.Resized(base.rows());
  }
  std::vector<int32_t> rows;
  if (filter.few().has_value()) {
    for (const int32_t item : *filter.few()) {
      if (const int64_t row = base.RowOf(item); row != 0) {
        rows.push_back(static_cast<int32_t>(row));
      }
    }
  } else {
    for (int64_t row = 1; row <= base.rows(); ++row) {
      const int32_t item = base.items[static_cast<size_t>(row)];
      if (item <= filter.items() && filter.Allows(item)) {
        rows.push_back(static_cast<int32_t>(row));
      }
    }
  }
  return ItemFilter::Allowing(base.rows(), rows);
}

}  // namespace

LiveIndex::LiveIndex(Options options, NestedSizes sizes)
    : options_(std::move(options)), sizes_(std::move(sizes)) {}

absl::StatusOr<std::unique_ptr<LiveIndex>> LiveIndex::Create(const LevelVectors& vectors,
                                                             std::shared_ptr<const void> owner,
                                                             Options options) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  if (options.widths.empty()) {
    return absl::InvalidArgumentError("a live index needs at least one width");
  }
  for (const Width& width : options.widths) {
    if (width.levels < 1 || width.levels > vectors.sizes.levels()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "levels is ", width.levels, "; these vectors have 1 to ", vectors.sizes.levels()));
    }
  }
  if (options.max_changes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_changes is ", options.max_changes, "; it must be at least 0"));
  }
  if (options.max_changes == 0) {
    options.max_changes = std::clamp(vectors.items() / 64, kLeastChanges, kMostChanges);
  }
  std::unique_ptr<LiveIndex> live(new LiveIndex(std::move(options), vectors.sizes));
  std::vector<int32_t> items(static_cast<size_t>(vectors.rows));
  for (size_t row = 0; row < items.size(); ++row) {
    items[row] = static_cast<int32_t>(row);
  }
  NESTREC_ASSIGN_OR_RETURN(
      live::Base base,
      live->BuildBase(
          {.vectors = vectors, .items = std::move(items), .owner = std::move(owner), .bytes = 0}));
  {
    const MutexLock lock(live->writer_);
    live->epoch_ = std::make_shared<live::Epoch>(std::move(base), 2 * live->options_.max_changes);
    live->highest_ = static_cast<int32_t>(vectors.items());
    live->size_ = vectors.items();
    live->due_at_ = live->options_.max_changes;
    live->Publish();
  }
  if (live->options_.background) {
    live->background_ = std::jthread([index = live.get()] { index->RunBackground(); });
  }
  return live;
}

LiveIndex::~LiveIndex() {
  {
    const MutexLock lock(writer_);
    is_stopping_ = true;
    changed_.NotifyAll();
  }
  if (background_.joinable()) {
    background_.join();
  }
}

absl::StatusOr<live::Base> LiveIndex::BuildBase(live::FoldedRows rows) const {
  live::Base base{.vectors = std::move(rows.vectors),
                  .owner = std::move(rows.owner),
                  .items = std::move(rows.items),
                  .indexes = {},
                  .owned_bytes = rows.bytes};
  for (const Width& width : options_.widths) {
    if (base.rows() > 0) {
      NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<const ItemIndex> index,
                               width.build(base.vectors, width.levels, base.owner));
      base.indexes.push_back(std::move(index));
    }
  }
  return base;
}

absl::Status LiveIndex::Apply(std::span<const ItemChange> changes) {
  const MutexLock lock(writer_);
  NESTREC_RETURN_IF_ERROR(Check(changes));
  NESTREC_RETURN_IF_ERROR(MakeRoom(static_cast<int64_t>(changes.size())));
  // A compaction may have let others in.
  NESTREC_RETURN_IF_ERROR(Check(changes));
  NESTREC_RETURN_IF_ERROR(Guard("changing items", [&]() -> absl::Status {
    epoch_->Reserve(static_cast<int64_t>(changes.size()));
    if (is_compacting_) {
      touched_.reserve(touched_.size() + changes.size());
    }
    return absl::OkStatus();
  }));
  // Nothing can fail any more.
  epoch_->Begin();
  for (const ItemChange& change : changes) {
    size_ -= epoch_->End(change.item) ? 1 : 0;
    if (change.vector.has_value()) {
      epoch_->Add(change.item, *change.vector);
      highest_ = std::max(highest_, change.item);
      ++size_;
    }
    if (is_compacting_) {
      touched_.insert(change.item);
    }
  }
  // A search that sees an item may have a filter over it.
  published_highest_.store(highest_, std::memory_order_release);
  epoch_->Publish();
  if (epoch_->base_dead() - published_dead_ >= kDeadBeforeFilter) {
    // Without memory for it, searches sort out what has ended.
    Guard("publishing", [&]() -> absl::Status {
      Publish();
      return absl::OkStatus();
    }).IgnoreError();
  }
  if (ChangesIn() >= due_at_ && !is_compacting_) {
    if (options_.background) {
      is_due_ = true;
      changed_.NotifyAll();
    } else {
      // The changes are made; what went wrong is told by last_compaction() and when room runs out.
      CompactLocked().IgnoreError();
    }
  }
  return absl::OkStatus();
}

absl::Status LiveIndex::Upsert(int32_t item, std::span<const float> vector) {
  const ItemChange change{.item = item, .vector = vector};
  return Apply({&change, 1});
}

absl::Status LiveIndex::Remove(int32_t item) {
  const ItemChange change{.item = item, .vector = std::nullopt};
  return Apply({&change, 1});
}

absl::StatusOr<int32_t> LiveIndex::Insert(std::span<const float> vector) {
  while (true) {
    const int32_t item = highest() + 1;
    const ItemChange change{.item = item, .vector = vector, .must_be_new = true};
    const absl::Status status = Apply({&change, 1});
    if (!absl::IsAlreadyExists(status)) {
      return status.ok() ? absl::StatusOr<int32_t>(item) : status;
    }
  }
}

absl::Status LiveIndex::Check(std::span<const ItemChange> changes) {
  if (static_cast<int64_t>(changes.size()) > options_.max_changes) {
    return absl::InvalidArgumentError(absl::StrCat(changes.size(), " changes at once; at most ",
                                                   options_.max_changes, " are allowed"));
  }
  const auto dim = static_cast<size_t>(sizes_.max_dim());
  int32_t highest = highest_;
  const bool is_half = epoch_->base().vectors.half();
  absl::flat_hash_map<int32_t, bool> exists;  // after the changes so far
  for (const ItemChange& change : changes) {
    const auto known = exists.find(change.item);
    const bool is_there = known != exists.end() ? known->second : epoch_->Has(change.item);
    if (change.vector.has_value()) {
      if (change.must_be_new && change.item <= highest) {
        return absl::AlreadyExistsError(absl::StrCat("item ", change.item, " has been taken"));
      }
      if (change.item > kHighestNumber) {
        return absl::ResourceExhaustedError(
            absl::StrCat("item ", change.item, ": numbers end at ", kHighestNumber));
      }
      if (change.item < 1 || change.item > highest + 1) {
        return absl::InvalidArgumentError(absl::StrCat("item ", change.item, " is not in 1 to ",
                                                       highest, ", and the next new item is ",
                                                       highest + 1));
      }
      if (change.vector->size() != dim) {
        return absl::InvalidArgumentError(absl::StrCat("the vector of item ", change.item, " has ",
                                                       change.vector->size(), " values; D is ",
                                                       dim));
      }
      for (size_t column = 0; column < dim; ++column) {
        if (!std::isfinite((*change.vector)[column])) {
          return absl::InvalidArgumentError(absl::StrCat("the vector of item ", change.item,
                                                         " has ", (*change.vector)[column],
                                                         " in column ", column));
        }
        if (is_half && std::abs((*change.vector)[column]) > kLargestHalf) {
          return absl::InvalidArgumentError(absl::StrCat(
              "the vector of item ", change.item, " has ", (*change.vector)[column], " in column ",
              column, "; these vectors are float16, which ends at ", kLargestHalf));
        }
      }
      highest = std::max(highest, change.item);
    } else if (!is_there) {
      return absl::NotFoundError(absl::StrCat("there is no item ", change.item, " to remove"));
    }
    if (changes.size() > 1) {
      exists[change.item] = change.vector.has_value();
    }
  }
  return absl::OkStatus();
}

int64_t LiveIndex::ChangesIn() const { return epoch_->added() + epoch_->base_dead(); }

absl::Status LiveIndex::MakeRoom(int64_t rows) {
  while (epoch_->added() + rows > 2 * options_.max_changes) {
    if (is_compacting_) {
      changed_.Wait(writer_);
      continue;
    }
    const absl::Status status = CompactLocked();
    if (!status.ok()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          epoch_->added(), " changes wait for a compaction, which failed: ", status.message()));
    }
  }
  return absl::OkStatus();
}

void LiveIndex::Publish() {
  auto alive = std::make_shared<const live::AliveRows>(epoch_->Alive());
  published_dead_ = alive->dead;
  published_highest_.store(highest_, std::memory_order_release);
  Published fresh{.epoch = epoch_, .alive = std::move(alive)};
  {
    const MutexLock lock(pointer_);
    std::swap(published_, fresh);
  }
  // What was published before goes here, outside the lock that searches take.
}

LiveIndex::Published LiveIndex::published() const {
  const MutexLock lock(pointer_);
  return published_;
}

absl::Status LiveIndex::CompactLocked() {
  while (is_compacting_) {
    changed_.Wait(writer_);
  }
  is_compacting_ = true;
  touched_.clear();
  const std::shared_ptr<const live::Epoch> old = epoch_;
  const live::Change now = old->now();
  // Changes and searches go on while the new base is built.
  writer_.unlock();
  std::shared_ptr<live::Epoch> fresh;
  absl::Status status = Guard("folding changes into a new base", [&]() -> absl::Status {
    live::FoldedRows rows = live::Fold(*old, now);
    NESTREC_ASSIGN_OR_RETURN(live::Base base, BuildBase(std::move(rows)));
    fresh = std::make_shared<live::Epoch>(std::move(base), 2 * options_.max_changes);
    return absl::OkStatus();
  });
  writer_.lock();
  if (status.ok()) {
    status = Guard("replacing the base", [&]() -> absl::Status {
      fresh->Reserve(static_cast<int64_t>(touched_.size()));
      fresh->Begin();
      for (const int32_t item : touched_) {
        fresh->End(item);
        if (const auto vector = epoch_->AddedVectorOf(item)) {
          fresh->Add(item, *vector);
        }
      }
      fresh->Publish();
      std::swap(epoch_, fresh);
      const int64_t dead_before = published_dead_;
      absl::Status published = Guard("publishing", [&]() -> absl::Status {
        Publish();
        return absl::OkStatus();
      });
      if (!published.ok()) {
        std::swap(epoch_, fresh);
        published_dead_ = dead_before;
      }
      return published;
    });
  }
  touched_.clear();
  is_compacting_ = false;
  compactions_ += status.ok() ? 1 : 0;
  // After a failure the next try waits for more changes.
  due_at_ = status.ok() ? options_.max_changes : ChangesIn() + options_.max_changes / 4 + 1;
  last_compaction_ = status;
  changed_.NotifyAll();
  return status;
}

absl::Status LiveIndex::Compact() {
  const MutexLock lock(writer_);
  return CompactLocked();
}

void LiveIndex::RunBackground() {
  const MutexLock lock(writer_);
  while (true) {
    while (!is_due_ && !is_stopping_) {
      changed_.Wait(writer_);
    }
    if (is_stopping_) {
      return;
    }
    is_due_ = false;
    CompactLocked().IgnoreError();  // last_compaction() tells
  }
}

absl::StatusOr<SearchResult> LiveIndex::Search(size_t width, std::span<const float> query,
                                               const SearchOptions& options) const {
  if (width >= options_.widths.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("width is ", width, "; this index has ", options_.widths.size(), " of them"));
  }
  const int levels = options_.widths[width].levels;
  SearchOptions plain = options;
  plain.filter = nullptr;
  NESTREC_RETURN_IF_ERROR(CheckSearch(query, plain, sizes_.end(levels - 1), 0));
  if (options.filter != nullptr && options.filter->items() > highest()) {
    return absl::InvalidArgumentError(absl::StrCat("the filter is over ", options.filter->items(),
                                                   " items; the highest is ", highest()));
  }
  return Guard("searching a live index", [&]() -> absl::StatusOr<SearchResult> {
    return SearchPublished(width, query, options);
  });
}

absl::StatusOr<SearchResult> LiveIndex::SearchPublished(size_t width, std::span<const float> query,
                                                        const SearchOptions& options) const {
  const int levels = options_.widths[width].levels;
  const Published snapshot = published();
  const live::Epoch& epoch = *snapshot.epoch;
  const live::Base& base = epoch.base();
  // After the pointers, so that what they leave out had ended by then.
  const live::Change now = epoch.now();
  SearchResult result{.items = {}, .exact = true, .rescored = 0};
  if (base.rows() > 0) {
    // These may come back although they have ended, so as many more are asked for.
    const int64_t ended_since = epoch.base_dead() - snapshot.alive->dead;
    std::optional<ItemFilter> rows;
    if (options.filter != nullptr) {
      rows = RowsOf(*options.filter, base);
    }
    if (snapshot.alive->dead > 0) {
      rows = rows.has_value() ? rows->And(snapshot.alive->rows) : snapshot.alive->rows;
    }
    SearchOptions ask = options;
    ask.k = std::min(options.k, base.rows()) + ended_since;
    ask.filter = rows.has_value() ? &*rows : nullptr;
    NESTREC_ASSIGN_OR_RETURN(result, base.indexes[width]->Search(query, ask));
    std::erase_if(result.items,
                  [&](const ScoredItem& found) { return !epoch.BaseRowIsAlive(found.item, now); });
    for (ScoredItem& found : result.items) {
      found.item = base.items[static_cast<size_t>(found.item)];
    }
  }
  epoch.ForEachAdded(now, [&](int32_t item, std::span<const float> vector) {
    const bool allowed = options.filter == nullptr ||
                         (item <= options.filter->items() && options.filter->Allows(item));
    if (allowed) {
      ++result.rescored;
      const float score = CanonicalScore(query, vector, sizes_, levels);
      if (!options.min_score.has_value() || score >= *options.min_score) {
        result.items.push_back({item, score});
      }
    }
  });
  const size_t kept = std::min(result.items.size(), static_cast<size_t>(options.k));
  std::partial_sort(result.items.begin(), result.items.begin() + static_cast<std::ptrdiff_t>(kept),
                    result.items.end(), RanksBefore);
  result.items.resize(kept);
  return result;
}

int32_t LiveIndex::highest() const { return published_highest_.load(std::memory_order_acquire); }

int64_t LiveIndex::size() const {
  const MutexLock lock(writer_);
  return size_;
}

int64_t LiveIndex::bytes() const {
  const Published snapshot = published();
  return snapshot.epoch->bytes() + snapshot.alive->rows.bytes();
}

int64_t LiveIndex::compactions() const {
  const MutexLock lock(writer_);
  return compactions_;
}

absl::Status LiveIndex::last_compaction() const {
  const MutexLock lock(writer_);
  return last_compaction_;
}

}  // namespace nestrec

#include "index/live_epoch.h"

#include <algorithm>
#include <utility>

namespace nestrec::live {

int64_t Base::RowOf(int32_t item) const {
  // Without removals the items are 1, 2, ...
  if (item > 0 && item <= rows() && items[static_cast<size_t>(item)] == item) {
    return item;
  }
  const auto found = std::lower_bound(items.begin(), items.end(), item);
  return found != items.end() && *found == item && item > 0 ? found - items.begin() : 0;
}

Epoch::Epoch(Base base, int64_t capacity)
    : base_(std::move(base)),
      dim_(static_cast<size_t>(base_.vectors.sizes.max_dim())),
      died_(base_.items.size()),
      chunks_(static_cast<size_t>((capacity + kChunkRows - 1) / kChunkRows)) {
  for (std::atomic<Change>& died : died_) {
    died.store(kNever, std::memory_order_relaxed);
  }
}

int64_t Epoch::bytes() const {
  int64_t bytes =
      base_.owned_bytes + static_cast<int64_t>(base_.items.capacity() * sizeof(int32_t) +
                                               died_.capacity() * sizeof(died_[0]) +
                                               chunks_.capacity() * sizeof(chunks_[0]));
  for (const auto& index : base_.indexes) {
    bytes += index->bytes();
  }
  const int64_t chunks = (added_.load(std::memory_order_acquire) + kChunkRows - 1) / kChunkRows;
  return bytes + chunks * kChunkRows * static_cast<int64_t>(sizeof(Row) + dim_ * sizeof(float));
}

void Epoch::Reserve(int64_t changes) {
  const auto needed = static_cast<size_t>((added() + changes + kChunkRows - 1) / kChunkRows);
  // Chunks that hold no row yet are not looked at by anybody.
  for (size_t i = static_cast<size_t>(added() / kChunkRows); i < std::min(needed, chunks_.size());
       ++i) {
    if (chunks_[i] == nullptr) {
      auto chunk = std::make_unique<Chunk>();
      chunk->rows = std::vector<Row>(kChunkRows);
      chunk->vectors.resize(static_cast<size_t>(kChunkRows) * dim_);
      chunks_[i] = std::move(chunk);
    }
  }
  added_rows_.reserve(added_rows_.size() + static_cast<size_t>(changes));
  const size_t dead = dead_rows_.size() + static_cast<size_t>(changes);
  if (dead > dead_rows_.capacity()) {
    dead_rows_.reserve(std::max(dead, 2 * dead_rows_.capacity()));
  }
}

void Epoch::Add(int32_t item, std::span<const float> vector) {
  const int64_t row = added();
  const std::unique_ptr<Chunk>& chunk = chunks_[static_cast<size_t>(row / kChunkRows)];
  const auto place = static_cast<size_t>(row % kChunkRows);
  const auto stored = std::span(chunk->vectors).subspan(place * dim_, dim_);
  std::copy(vector.begin(), vector.end(), stored.begin());
  if (base_.vectors.half()) {
    for (float& value : stored) value = FloatOfHalf(HalfOfFloat(value));
  }
  chunk->rows[place].item = item;
  chunk->rows[place].born = change_;
  added_rows_[item] = row;
  added_.store(row + 1, std::memory_order_release);
}

bool Epoch::End(int32_t item) {
  const auto added = added_rows_.find(item);
  if (added != added_rows_.end()) {
    Chunk& chunk = *chunks_[static_cast<size_t>(added->second / kChunkRows)];
    chunk.rows[static_cast<size_t>(added->second % kChunkRows)].died.store(
        change_, std::memory_order_relaxed);
    added_rows_.erase(added);
    return true;
  }
  const int64_t row = base_.RowOf(item);
  if (row == 0 || !BaseRowIsAlive(row, kNever - 1)) {
    return false;
  }
  // Counted first: a search that sees the row dead must know of it.
  base_dead_.fetch_add(1, std::memory_order_release);
  died_[static_cast<size_t>(row)].store(change_, std::memory_order_relaxed);
  dead_rows_.push_back(static_cast<int32_t>(row));
  return true;
}

bool Epoch::Has(int32_t item) const {
  if (added_rows_.contains(item)) {
    return true;
  }
  const int64_t row = base_.RowOf(item);
  return row != 0 && BaseRowIsAlive(row, kNever - 1);
}

std::optional<std::span<const float>> Epoch::AddedVectorOf(int32_t item) const {
  const auto found = added_rows_.find(item);
  return found == added_rows_.end() ? std::nullopt : std::optional(VectorOf(found->second));
}

AliveRows Epoch::Alive() const {
  return {.rows = ItemFilter::Excluding(base_.rows(), dead_rows_),
          .dead = static_cast<int64_t>(dead_rows_.size())};
}

namespace {

// Where a row of a new base comes from.
struct Source {
  int32_t item;
  int64_t base_row;              // 0: added
  std::span<const float> added;  // [D]
};

Half Rounded(float value, Half /*kind*/) { return HalfOfFloat(value); }
float Rounded(float value, float /*kind*/) { return value; }

// The rows' levels after a row of padding, owned by folded.owner. `old` is the base's, `levels`
// where they belong in folded.vectors.
template <class T>
void CopyLevels(const NestedSizes& sizes, const std::vector<std::span<const T>>& old,
                std::span<const Source> sources, std::vector<std::span<const T>>& levels,
                FoldedRows& folded) {
  auto owned = std::make_shared<std::vector<std::vector<T>>>();
  for (int level = 0; level < sizes.levels(); ++level) {
    const auto width = static_cast<size_t>(sizes.width(level));
    std::vector<T>& values = owned->emplace_back();
    values.reserve((sources.size() + 1) * width);
    values.resize(width);  // the padding row
    for (const Source& source : sources) {
      if (source.base_row != 0) {
        const auto row = old[static_cast<size_t>(level)].subspan(
            static_cast<size_t>(source.base_row) * width, width);
        values.insert(values.end(), row.begin(), row.end());
      } else {
        for (const float value :
             source.added.subspan(static_cast<size_t>(sizes.begin(level)), width)) {
          values.push_back(Rounded(value, T()));
        }
      }
    }
    folded.bytes += static_cast<int64_t>(values.capacity() * sizeof(T));
  }
  for (const std::vector<T>& values : *owned) levels.emplace_back(values);
  folded.owner = std::move(owned);
}

}  // namespace

FoldedRows Fold(const Epoch& epoch, Change now) {
  const Base& old = epoch.base();
  std::vector<Source> sources;
  for (int64_t row = 1; row <= old.rows(); ++row) {
    if (epoch.BaseRowIsAlive(row, now)) {
      sources.push_back({old.items[static_cast<size_t>(row)], row, {}});
    }
  }
  epoch.ForEachAdded(now, [&](int32_t item, std::span<const float> vector) {
    sources.push_back({item, 0, vector});
  });
  std::sort(sources.begin(), sources.end(),
            [](const Source& a, const Source& b) { return a.item < b.item; });

  FoldedRows folded{.vectors = {.sizes = old.vectors.sizes,
                                .rows = static_cast<int64_t>(sources.size()) + 1,
                                .levels = {}},
                    .items = {0},
                    .owner = nullptr,
                    .bytes = 0};
  if (old.vectors.half()) {
    CopyLevels(old.vectors.sizes, old.vectors.halves, sources, folded.vectors.halves, folded);
  } else {
    CopyLevels(old.vectors.sizes, old.vectors.levels, sources, folded.vectors.levels, folded);
  }
  folded.items.reserve(sources.size() + 1);
  for (const Source& source : sources) {
    folded.items.push_back(source.item);
  }
  return folded;
}

}  // namespace nestrec::live

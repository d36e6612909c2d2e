// An index together with what changed since it was built: rows that came or got another vector, and
// items that may not come back any more. The rows are scored one by one, so they should stay few;
// the index answers for all others, whatever its kind.
//
//   const ItemOverlay overlay(index.items(), /*items=*/501, {{.item = 501, .vector = v}}, {7, 9});
//   const OverlaidIndex live(&index, &overlay, sizes, levels, Similarity::kProduct);
//   NESTREC_ASSIGN_OR_RETURN(SearchResult result, live.Search(query, {.k = 10}));
//
// Results are those of an index of the same kind over the items as they are now, and exact where
// the index is: brute force over them is the oracle. Against a LiveIndex (live_index.h) an overlay
// is a value: searches that hold one agree on what there is, with catalogues and filters that
// belong to it.
//
// Ownership: both look at what others own.
// Thread safety: immutable; searches may run in parallel.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"
#include "index/item_filter.h"
#include "index/item_index.h"

namespace nestrec {

class ItemOverlay {
 public:
  struct Row {
    int32_t item = 0;
    const float* vector = nullptr;  // [D] in one piece
  };

  // The index has items 1..base_items; now they are 1..items. `rows`: what comes beside it;
  // `hidden`: items of the index that it must not return, those with a row of their own included.
  // REQUIRES: both ascending and without repetition; every row's item is hidden or beyond
  // base_items; items >= base_items.
  ItemOverlay(int64_t base_items, int64_t items, std::vector<Row> rows,
              std::vector<int32_t> hidden);

  int64_t base_items() const { return base_items_; }
  int64_t items() const { return items_; }
  std::span<const Row> rows() const { return rows_; }
  std::span<const int32_t> hidden() const { return hidden_; }
  bool Hides(int32_t item) const;
  // What the index may return.
  const ItemFilter& shown() const { return shown_; }
  int64_t bytes() const;

 private:
  int64_t base_items_;
  int64_t items_;
  std::vector<Row> rows_;
  std::vector<int32_t> hidden_;
  ItemFilter shown_;
};

// What a score is: index/score.h, or index/cosine_index.h.
enum class Similarity { kProduct, kCosine };

class OverlaidIndex final : public ItemIndex {
 public:
  // REQUIRES: an index of `levels` levels of `sizes`, over overlay->base_items() items, whose
  // scores are of this kind.
  OverlaidIndex(const ItemIndex* index, const ItemOverlay* overlay, const NestedSizes& sizes,
                int levels, Similarity similarity)
      : index_(index), overlay_(overlay), sizes_(sizes), levels_(levels), similarity_(similarity) {}

  absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                      const SearchOptions& options) const override;
  absl::StatusOr<std::vector<SearchResult>> SearchBatch(
      std::span<const IndexQuery> queries) const override;
  int dim() const override { return sizes_.end(levels_ - 1); }
  // The highest number; some of them may not exist.
  int64_t items() const override { return overlay_->items(); }
  int64_t bytes() const override { return overlay_->bytes(); }
  bool exact() const override { return index_->exact(); }
  bool intact() const override { return index_->intact(); }
  std::string description() const override;

 private:
  // What the index is asked, for a search.
  struct Asked {
    std::optional<ItemFilter> filter;
    SearchOptions options;  // but for its filter
    IndexQuery For(std::span<const float> query) const;
  };
  Asked Ask(const SearchOptions& options) const;
  // Puts the live rows in the place of what is hidden, and orders the best.
  void Complete(const IndexQuery& query, SearchResult& result) const;
  void SearchRows(std::span<const float> query, const SearchOptions& options,
                  SearchResult& result) const;

  const ItemIndex* const index_;
  const ItemOverlay* const overlay_;
  const NestedSizes& sizes_;
  const int levels_;
  const Similarity similarity_;
};

}  // namespace nestrec

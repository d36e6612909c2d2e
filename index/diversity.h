// Result lists that are not all of one kind: at most n items per brand (or any field's value), and
// a re-ranking that trades score against likeness to what is already in the list.
//
// Thread safety: pure functions; the index is searched on the calling thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "index/attribute_view.h"
#include "index/item_index.h"
#include "index/level_vectors.h"

namespace nestrec {

// At most `most` items that share a value of `field`. An item without a value is never held back;
// one with several counts for each of them.
struct GroupCap {
  std::string field;
  int32_t most = 1;
};

// The first k items that the caps let pass when the ranking of all allowed items is walked from the
// best: each is taken unless one of its values has its number already. The answer is that of
// walking the whole ranking, and `exact` as in it, but only what is needed is searched: values
// that are used up leave the search, which goes on until k are found or none is left.
//
// REQUIRES: every cap's `most` is at least 1, and the attributes are those of the index's items. A
// field that no item has holds nothing back. Errors of ItemIndex::Search.
absl::StatusOr<SearchResult> SearchWithCaps(const ItemIndex& index, std::span<const float> query,
                                            const SearchOptions& options,
                                            const AttributeView& attributes,
                                            std::span<const GroupCap> caps);

// Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): picks k of the candidates one
// by one, each time the one with the highest
//
//   weight * relevance - (1 - weight) * (greatest cosine to an item picked before)
//
// where relevance is the score, scaled so that the candidates' lowest is 0 and highest is 1 (all
// equal: 1), and cosines are of the items' vectors at the first `levels` levels, 0 for a vector of
// zeros. Ties go to the candidate that stands first. The picked items come in the order of picking,
// with the scores that they had. Weight 1 keeps the candidates' order.
//
// Costs k * candidates * dim multiplications, and candidates * dim floats.
// REQUIRES: candidates are ordered by RanksBefore and rows of `vectors`; 0 <= weight <= 1;
// 1 <= levels <= vectors.sizes.levels().
std::vector<ScoredItem> PickDiverse(std::span<const ScoredItem> candidates,
                                    const LevelVectors& vectors, int levels, double weight,
                                    int64_t k);

// The same of items wherever their vectors are: copy_vector(item, out) writes an item's first
// `levels` levels, [sizes.end(levels - 1)], to `out`.
using CopyVector = absl::FunctionRef<void(int32_t item, std::span<float> out)>;
std::vector<ScoredItem> PickDiverse(std::span<const ScoredItem> candidates, CopyVector copy_vector,
                                    const NestedSizes& sizes, int levels, double weight, int64_t k);

}  // namespace nestrec

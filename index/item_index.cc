#include "index/item_index.h"

#include <utility>

#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<std::vector<SearchResult>> ItemIndex::SearchBatch(
    std::span<const IndexQuery> queries) const {
  std::vector<SearchResult> results;
  for (const IndexQuery& query : queries) {
    NESTREC_ASSIGN_OR_RETURN(SearchResult result, Search(query.query, query.options));
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace nestrec

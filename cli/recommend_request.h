// The flags of `nestrec recommend` and `nestrec encode` that become the request.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nestrec/v1/recommend.pb.h"

namespace nestrec {

// The field that people read items by.
inline constexpr char kTitleField[] = "title";

struct RequestFlags {
  std::string similar_to;  // an item; then there is no user and no history
  std::string user;
  std::string history, history_file;
  std::string exclude, exclude_file;
  std::string only, only_file;
  std::optional<uint32_t> k;
  std::optional<int> dim;
  std::optional<std::string> tier;
  std::optional<float> min_score;
  bool include_seen = false;
  std::vector<std::string> where;  // conditions, all of which hold (item_condition.h)
  std::string filter;              // one as JSON
  std::vector<std::string> most;   // caps
  std::optional<float> relevance;  // of diversity
  bool explain = false;
};

// For flags that exclude them.
struct HistoryFlags {
  CLI::Option* user;
  CLI::Option* history;
  CLI::Option* history_file;
  CLI::Option* dim;
  CLI::Option* tier;
};
struct WidthFlags {
  CLI::Option* dim;
  CLI::Option* tier;
  CLI::Option* similar_to;
};

// Whose history at which width: --user, --history, --history-file, --dim, --tier. `flags` must
// outlive the parsing.
HistoryFlags AddHistoryFlags(CLI::App& command, RequestFlags* flags);

// These and all others. `flags` must outlive the parsing.
WidthFlags AddRequestFlags(CLI::App& command, RequestFlags* flags);

// Usage errors for what the flags say; errors of the files that they name.
absl::StatusOr<v1::RecommendRequest> RequestOf(const RequestFlags& flags);
absl::StatusOr<v1::EncodeRequest> EncodeRequestOf(const RequestFlags& flags);
absl::StatusOr<v1::SimilarItemsRequest> SimilarRequestOf(const RequestFlags& flags);

}  // namespace nestrec

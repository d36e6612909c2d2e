// A few users with what the model made of them, kept in the checkpoint: whoever loads it can find
// out whether it computes the same.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"

namespace nestrec {

class Encoder;
struct Dataset;

struct SelfCheckUser {
  std::vector<int32_t> history;  // 1-based item numbers, oldest first; at most max_len
  int32_t target = 0;            // the item that is scored and ranked
  std::vector<float> scores;     // [sizes] of the target: <z[:s], e[:s]>
  std::vector<int64_t> ranks;    // [sizes] of the target among all items, 1-based

  friend bool operator==(const SelfCheckUser&, const SelfCheckUser&) = default;
};

inline constexpr size_t kMostSelfCheckUsers = 32;

// Up to kMostSelfCheckUsers of the data's evaluated users, evenly picked, with their test items.
// `ranks` [sizes][evaluated users] as Evaluate gives them. Errors of Encoder::Encode.
absl::StatusOr<std::vector<SelfCheckUser>> MakeSelfCheck(
    const Encoder& encoder, const Dataset& dataset, const std::vector<std::vector<int64_t>>& ranks);

nlohmann::ordered_json SelfCheckToJson(const std::vector<SelfCheckUser>& users);
// kInvalidArgument, saying what, for an entry without a key, an item outside 1..items, or lists
// that are not about `sizes` sizes.
absl::StatusOr<std::vector<SelfCheckUser>> SelfCheckFromJson(const nlohmann::ordered_json& json,
                                                             int64_t items, size_t sizes);

}  // namespace nestrec

// The leave-one-out split: a user's last item is the test item, the one before it the validation
// item, the rest is training data. Users with fewer than 3 events have training items only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestrec {

inline constexpr size_t kHeldOutItems = 2;
inline constexpr size_t kMinEvaluatedEvents = 3;

enum class Split { kValidation, kTest };

inline bool IsEvaluated(std::span<const int32_t> sequence) {
  return sequence.size() >= kMinEvaluatedEvents;
}

inline std::span<const int32_t> TrainingItems(std::span<const int32_t> sequence) {
  return IsEvaluated(sequence) ? sequence.first(sequence.size() - kHeldOutItems) : sequence;
}

// What is known before the target. REQUIRES: IsEvaluated(sequence).
inline std::span<const int32_t> HistoryOf(std::span<const int32_t> sequence, Split split) {
  return sequence.first(sequence.size() - (split == Split::kTest ? 1 : 2));
}

inline int32_t TargetOf(std::span<const int32_t> sequence, Split split) {
  return sequence[sequence.size() - (split == Split::kTest ? 1 : 2)];
}

}  // namespace nestrec

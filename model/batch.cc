#include "model/batch.h"

#include <algorithm>

#include "model/split.h"

namespace nestrec {

std::vector<TrainingWindow> MakeTrainingWindows(const Dataset& dataset, int max_len,
                                                Windows windows) {
  std::vector<TrainingWindow> result;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    const int64_t trained = static_cast<int64_t>(TrainingItems(dataset.sequence(user)).size());
    for (int64_t end = trained; end > 0; end -= max_len) {
      const int64_t begin = std::max<int64_t>(0, end - max_len);
      result.push_back({user, static_cast<int32_t>(begin), static_cast<int32_t>(end)});
      if (windows == Windows::kLast) break;
    }
  }
  return result;
}

int64_t PackedBatch::labelled() const {
  return static_cast<int64_t>(labels.size()) - std::count(labels.begin(), labels.end(), 0);
}

void PackedBatch::Append(std::span<const int64_t> new_tokens, std::span<const int64_t> new_labels) {
  if (run_begins.empty()) run_begins.push_back(0);
  bool state_passes_on = false;
  for (size_t i = 0; i < new_tokens.size(); ++i) {
    const bool padding = new_tokens[i] == 0;
    if (padding && new_labels[i] == 0) {
      state_passes_on = false;
      continue;
    }
    if (state_passes_on && !padding) {
      ++run_begins.back();
    } else {
      run_begins.push_back(run_begins.back() + 1);
    }
    state_passes_on = !padding;
    tokens.push_back(new_tokens[i]);
    labels.push_back(new_labels[i]);
  }
}

PackedBatch PackWindows(const Dataset& dataset, std::span<const TrainingWindow> windows) {
  PackedBatch batch;
  std::vector<int64_t> tokens;
  std::vector<int64_t> labels;
  for (const TrainingWindow& window : windows) {
    const std::span<const int32_t> sequence = dataset.sequence(window.user);
    tokens.clear();
    labels.clear();
    for (int32_t i = window.begin; i < window.end; ++i) {
      tokens.push_back(i == 0 ? 0 : sequence[static_cast<size_t>(i) - 1]);
      labels.push_back(sequence[static_cast<size_t>(i)]);
    }
    batch.Append(tokens, labels);
  }
  return batch;
}

}  // namespace nestrec

#include "model/thinned_dataset.h"

#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/random.h"

namespace nestrec {

std::shared_ptr<const Dataset> ThinnedDataset(const Dataset& dataset, double share, uint64_t seed) {
  constexpr size_t kAlwaysKept = 3;
  auto thinned = std::make_shared<Dataset>(dataset);
  thinned->interactions.clear();
  thinned->offsets = {0};
  Random random(seed, 0);
  for (int64_t user = 0; user < dataset.users(); ++user) {
    const std::span<const int32_t> sequence = dataset.sequence(user);
    for (size_t i = 0; i < sequence.size(); ++i) {
      const bool kept = i + kAlwaysKept >= sequence.size() || random.Uniform() < share;
      if (kept) thinned->interactions.push_back(sequence[i]);
    }
    thinned->offsets.push_back(static_cast<int64_t>(thinned->interactions.size()));
  }
  thinned->fingerprint = absl::StrFormat("%s, %.12g of its training events, seed %d",
                                         dataset.fingerprint, share, seed);
  return thinned;
}

}  // namespace nestrec

#include "model/item_sample.h"

#include <algorithm>
#include <cmath>

namespace nestrec {

ItemSampler::ItemSampler(std::span<const int64_t> counts, int64_t expected) {
  constexpr double kExponent = 0.75;  // between uniform and by popularity (Mikolov et al. 2013)
  double sum = 0;
  for (const int64_t count : counts) {
    probabilities_.push_back(std::pow(static_cast<double>(count) + 1, kExponent));
    sum += probabilities_.back();
  }
  // Items that reach 1 leave their surplus to the others: raise the factor until the sum is right.
  double factor = static_cast<double>(expected) / sum;
  constexpr int kMostRounds = 50;
  for (int round = 0; round < kMostRounds; ++round) {
    double certain = 0;
    double rest = 0;
    for (const double weight : probabilities_) {
      if (factor * weight >= 1) {
        ++certain;
      } else {
        rest += weight;
      }
    }
    const double missing = static_cast<double>(expected) - certain;
    if (rest <= 0 || missing <= factor * rest) break;
    factor = missing / rest;
  }
  for (double& probability : probabilities_) probability = std::min(1.0, factor * probability);
}

ItemSample ItemSampler::Draw(std::span<const int64_t> labels, Random& random) const {
  std::vector<int64_t> certain(labels.begin(), labels.end());
  std::sort(certain.begin(), certain.end());
  certain.erase(std::unique(certain.begin(), certain.end()), certain.end());
  ItemSample sample;
  size_t next = 0;  // of `certain`
  for (size_t item = 0; item < probabilities_.size(); ++item) {
    const double probability = probabilities_[item];
    const bool drawn = random.Uniform() < probability;
    const bool is_label = next < certain.size() && certain[next] == static_cast<int64_t>(item);
    if (is_label) ++next;
    if (!is_label && !drawn) continue;
    sample.items.push_back(static_cast<int64_t>(item));
    sample.offsets.push_back(is_label ? 0.0f : static_cast<float>(-std::log(probability)));
  }
  for (const int64_t label : labels) {
    sample.labels.push_back(std::lower_bound(sample.items.begin(), sample.items.end(), label) -
                            sample.items.begin());
  }
  return sample;
}

}  // namespace nestrec

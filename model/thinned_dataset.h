// A dataset with fewer interactions, for experiments on sparse data.
//
// Thread safety: pure.
#pragma once

#include <cstdint>
#include <memory>

#include "model/dataset.h"

namespace nestrec {

// Every user keeps the last two events, which validation and test need, the one before them, and of
// the others a random `share`. So users and targets stay the same, and what differs between shares
// is what there is to learn from. The fingerprint changes with share and seed.
// REQUIRES: 0 <= share <= 1.
std::shared_ptr<const Dataset> ThinnedDataset(const Dataset& dataset, double share, uint64_t seed);

}  // namespace nestrec

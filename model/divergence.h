// Why a training run may have lost its numbers, in words for the person who started it.
//
// Thread safety: pure.
#pragma once

#include <string>

#include "model/dataset.h"
#include "model/recipe.h"

namespace nestrec {

// The likely cause of a loss or gradient that is no number, and the cure: features that are too
// large, with the place of the largest, else the learning rate.
std::string CauseOfDivergence(const Dataset& dataset, const Recipe& recipe);

}  // namespace nestrec

// A quick training run on the data of cycle_dataset.h.
#pragma once

#include <string>

#include "base/nested_sizes.h"
#include "model/trainer.h"

namespace nestrec {

inline TrainerOptions CycleTrainerOptions(const std::string& output, int epochs) {
  Recipe recipe;
  recipe.learning_rate = 5e-3;
  recipe.batch_size = 16;
  recipe.max_len = 5;
  recipe.dropout = 0.1;
  recipe.warmup_steps = 5;
  recipe.epochs = epochs;
  return TrainerOptions{.sizes = *NestedSizes::Parse("8,16"),
                        .recipe = recipe,
                        .name = "cycle",
                        .program_version = "test",
                        .output = output,
                        .threads = 1};
}

}  // namespace nestrec

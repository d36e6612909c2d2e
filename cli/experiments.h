// The experiments of `nestrec experiment`: each is a question and the training runs that answer it,
// which differ in one thing.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/nested_sizes.h"
#include "model/recipe.h"

namespace nestrec {

struct ExperimentVariant {
  std::string label;  // for people; its letters and digits make the file name
  double x = 0;       // where the plot has it; used when the experiment has an x_label
  NestedSizes sizes;
  Recipe recipe;
  std::vector<std::string> modalities;  // empty: all of the data folder
  double density = 1.0;                 // the share of training events: model/thinned_dataset.h
  // Which line of a plot against width it belongs to; empty: one of its own, named by its label.
  std::string line = {};
  // Not empty: nothing is trained; the scores of these earlier variants are averaged.
  std::vector<size_t> mean_of = {};
};

struct Experiment {
  std::string name;
  std::string question;
  // Empty: variants are compared, and the plot has quality against width, a line each. Else the
  // plot has quality against x, a line for each width.
  std::string x_label;
  std::vector<ExperimentVariant> variants;
};

// What every experiment starts from.
struct ExperimentBase {
  NestedSizes sizes;
  Recipe recipe;
  std::vector<std::string> modalities;  // those of the data folder
  int64_t items = 0;
};

// Names and questions, in the order of docs/results.md.
std::vector<std::pair<std::string, std::string>> ExperimentQuestions();

// kInvalidArgument, with the names there are, for another name; kFailedPrecondition, saying why,
// for an experiment that the base does not allow.
absl::StatusOr<Experiment> MakeExperiment(absl::string_view name, const ExperimentBase& base);

}  // namespace nestrec

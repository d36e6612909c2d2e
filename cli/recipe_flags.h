// The flags of `nestrec train` that are the recipe: --recipe names one, the others change it.
//
// Thread safety: none. An object outlives the command that its flags were added to.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/recipe.h"

namespace nestrec {

class RecipeFlags {
 public:
  void AddTo(CLI::App& command);

  // The named recipe with what the command line changed of it. A usage error (cli/flags.h), naming
  // the flag, for a value outside its limits.
  absl::StatusOr<Recipe> Read() const;
  const std::string& name() const { return name_; }

 private:
  template <typename Field>
  CLI::Option* Add(CLI::App& command, const std::string& flag, Field Recipe::*field,
                   const std::string& help);
  // "--flag", and "--no-flag" against it.
  void AddSwitch(CLI::App& command, const std::string& flag, bool Recipe::*field,
                 const std::string& help);
  void AddSchedule(CLI::App& command);
  void AddNetwork(CLI::App& command);
  void AddLoss(CLI::App& command);

  std::string name_ = "nestrec";
  std::string windows_ = "last";
  Recipe given_;  // only the fields whose flags were given count
  std::vector<std::function<void(Recipe&)>> changes_;
};

}  // namespace nestrec

// What a command was started with, for its log.
//
// Pure functions.
#pragma once

#include <CLI/CLI.hpp>
#include <vector>

#include "server/log.h"

namespace nestrec {

// Every option of the command by its long name, with the value that it was given or its default;
// empty ones are left out. What stands before an @ in an address, as passwords do, is not shown.
std::vector<LogField> ConfigurationOf(const CLI::App& command);

}  // namespace nestrec

#include "cli/configuration.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nestrec {
namespace {

// "redis://user:secret@host" -> "redis://***@host"
std::string WithoutSecrets(const std::string& value) {
  const size_t slashes = value.find("://");
  const size_t at = value.rfind('@');
  if (slashes == std::string::npos || at == std::string::npos || at < slashes) return value;
  return absl::StrCat(value.substr(0, slashes + 3), "***", value.substr(at));
}

}  // namespace

std::vector<LogField> ConfigurationOf(const CLI::App& command) {
  std::vector<LogField> fields;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames().front() == "help") continue;
    const std::string value =
        option->count() > 0 ? absl::StrJoin(option->results(), " ") : option->get_default_str();
    if (!value.empty()) fields.emplace_back(option->get_lnames().front(), WithoutSecrets(value));
  }
  return fields;
}

}  // namespace nestrec

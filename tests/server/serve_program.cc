#include "tests/server/serve_program.h"

#include <httplib.h>

#include <regex>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "tests/testing/random_model.h"

namespace nestrec {

ServeProgram::ServeProgram(Options options) : options_(std::move(options)) {}

absl::Status ServeProgram::Start() {
  const std::string models = folder_.File("models");
  NESTREC_RETURN_IF_ERROR(MakeDirectories(models));
  NESTREC_RETURN_IF_ERROR(RandomModel({.sizes = {8, 16, 64}}).Write(models + "/v1.safetensors"));
  if (options_.shadow) {
    NESTREC_RETURN_IF_ERROR(
        RandomModel({.sizes = {8, 16, 64}, .seed = 2}).Write(models + "/v2.safetensors"));
    NESTREC_RETURN_IF_ERROR(WriteFileAtomically(models + "/labels.textproto",
                                                "stable: 'v1' canary: 'v2' shadow_share: 1"));
  }
  const std::string port = folder_.File("port");
  const std::string http_port = folder_.File("http_port");
  std::vector<std::string> arguments = {
      options_.program,   "serve",  "--model",     models, "--listen",      "127.0.0.1:0",
      "--threads",        "1",      "--port-file", port,   "--http-listen", "127.0.0.1:0",
      "--http-port-file", http_port};
  arguments.insert(arguments.end(), {"--health-listen", "127.0.0.1:0", "--health-port-file",
                                     folder_.File("health_port")});
  if (options_.sessions) {
    arguments.insert(arguments.end(), {"--sessions", folder_.File("sessions")});
  }
  arguments.insert(arguments.end(), options_.more.begin(), options_.more.end());
  NESTREC_ASSIGN_OR_RETURN(child_, ChildProcess::Start(arguments));
  // As text or as JSON.
  NESTREC_ASSIGN_OR_RETURN(const std::string line, child_->WaitForOutput("default_tier"));
  address_ = AddressIn("port");
  http_address_ = AddressIn("http_port");
  health_address_ = AddressIn("health_port");
  return absl::OkStatus();
}

std::string ServeProgram::AddressIn(const std::string& name) const {
  return absl::StrCat("127.0.0.1:",
                      absl::StripSuffix(ReadFile(folder_.File(name)).value_or("none"), "\n"));
}

ServeProgram::Page ServeProgram::Get(const std::string& path) const {
  httplib::Client client(absl::StrCat("http://", http_address_));
  const auto got = client.Get(path);
  return got ? Page{.code = got->status, .text = got->body} : Page{};
}

std::map<std::string, double> ServeProgram::Metrics() const {
  std::map<std::string, double> values;
  const std::string text = Get("/metrics").text;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const size_t space = line.rfind(' ');
    double value = 0;
    if (line[0] == '#' || !absl::SimpleAtod(line.substr(space + 1), &value)) continue;
    values[std::string(line.substr(0, space))] = value;
  }
  return values;
}

std::map<std::string, ServeProgram::MetricFamily> ServeProgram::MetricFamilies() const {
  std::map<std::string, MetricFamily> families;
  const std::string text = Get("/metrics").text;
  MetricFamily* family = nullptr;  // the one whose lines these are: a family's lines are together
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (absl::ConsumePrefix(&line, "# HELP ")) {
      const std::pair<std::string, std::string> name_and_help =
          absl::StrSplit(line, absl::MaxSplits(' ', 1));
      family = &families[name_and_help.first];
      family->help = name_and_help.second;
    } else if (absl::ConsumePrefix(&line, "# TYPE ")) {
      const std::pair<std::string, std::string> name_and_kind = absl::StrSplit(line, ' ');
      family = &families[name_and_kind.first];
      family->kind = name_and_kind.second;
    } else if (const size_t open = line.find('{');
               family != nullptr && open != absl::string_view::npos) {
      static const std::regex* const label_pattern =
          new std::regex(R"re(([a-z_]+)="(?:[^"\\]|\\.)*")re");
      for (std::cregex_iterator
               label(line.data() + open, line.data() + line.size(), *label_pattern),
           end;
           label != end; ++label) {
        if ((*label)[1] != "le") family->labels.insert((*label)[1]);
      }
    }
  }
  return families;
}

RecommendClient ServeProgram::Client() const {
  return RecommendClient({.server = address_, .timeout = absl::Seconds(60)});
}

}  // namespace nestrec

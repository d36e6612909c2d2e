// nestrec encode: asks a server for a history's vector.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "cli/answer_text.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "cli/recommend_request.h"
#include "server/client.h"
#include "server/proto_time.h"

namespace nestrec {
namespace {

struct EncodeFlags {
  ClientFlags client;
  RequestFlags request;
  bool seen = false;
  bool json = false;
};

void PrintVector(const v1::EncodeResponse& response, absl::Duration round_trip) {
  constexpr int kShown = 8;
  double squares = 0;
  for (const float value : response.vector()) squares += double{value} * value;
  const int shown = std::min(response.vector_size(), kShown);
  std::printf("[%s%s]\n",
              absl::StrJoin(
                  response.vector().begin(), response.vector().begin() + shown, ", ",
                  [](std::string* out, float value) { absl::StrAppendFormat(out, "%.4f", value); })
                  .c_str(),
              shown < response.vector_size() ? ", ..." : "");
  PrintUnknown("of the history", response.unknown_item_ids(), response.unknown_item_count());
  if (!response.seen_item_ids().empty()) {
    std::printf("seen: %s\n", Printable(absl::StrJoin(response.seen_item_ids(), ", ")).c_str());
  }
  const v1::Served& served = response.served();
  std::printf(
      "\n%d numbers%s, length %.4f, model %s; --json prints all of them\n", response.vector_size(),
      served.tier().empty() ? "" : absl::StrCat(" (tier ", Printable(served.tier()), ")").c_str(),
      std::sqrt(squares), Printable(served.model_version()).c_str());
  std::printf("%s in the server (queue %s, encode %s), %s for the whole call\n",
              MillisecondsText(FromProto(served.timings().total())).c_str(),
              MillisecondsText(FromProto(served.timings().queue())).c_str(),
              MillisecondsText(FromProto(served.timings().encode())).c_str(),
              MillisecondsText(round_trip).c_str());
}

absl::Status RunEncode(const EncodeFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags.client));
  const RecommendClient client(std::move(options));
  NESTREC_ASSIGN_OR_RETURN(v1::EncodeRequest request, EncodeRequestOf(flags.request));
  request.set_return_seen(flags.seen);
  const absl::Time start = absl::Now();
  NESTREC_ASSIGN_OR_RETURN(const v1::EncodeResponse response, client.Encode(request));
  const absl::Duration round_trip = absl::Now() - start;
  if (flags.json) return PrintJson(response);
  PrintVector(response, round_trip);
  return absl::OkStatus();
}

}  // namespace

void AddEncodeCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<EncodeFlags>();
  CLI::App* command = app.add_subcommand(
      "encode", "Ask a server for a history's vector, to search another engine with");
  AddClientFlags(*command, flags->client);
  AddHistoryFlags(*command, &flags->request);
  command->add_flag("--seen", flags->seen,
                    "Also name the items of session and history, which the engine must leave out");
  command->add_flag("--json", flags->json, "Print the answer, with all of the vector, as JSON");
  command->callback([flags, selected] { *selected = [flags] { return RunEncode(*flags); }; });
}

}  // namespace nestrec

// nestrec recommend: asks a server, for people.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
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
#include "server/status_details.h"

namespace nestrec {
namespace {

struct RecommendFlags {
  ClientFlags client;
  RequestFlags request;
  bool json = false;
  bool compare = false;
};

constexpr int kTitleColumns = 60;

// Columns that a terminal needs for a character: two for East Asian wide ones and emoji, roughly.
int ColumnsOf(uint32_t code_point) {
  const bool wide = (code_point >= 0x1100 && code_point <= 0x115f) ||
                    (code_point >= 0x2e80 && code_point <= 0xa4cf) ||
                    (code_point >= 0xac00 && code_point <= 0xd7a3) ||
                    (code_point >= 0xf900 && code_point <= 0xfaff) ||
                    (code_point >= 0xfe30 && code_point <= 0xfe6f) ||
                    (code_point >= 0xff00 && code_point <= 0xff60) ||
                    (code_point >= 0x1f300 && code_point <= 0x1faff);
  return wide ? 2 : 1;
}

// `text` in exactly `columns` columns: cut at a character with "~" at the end, or padded. Control
// characters become spaces, since titles come from elsewhere and terminals obey them.
std::string Fit(absl::string_view text, int columns, bool pad = true) {
  std::string out;
  int used = 0;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = std::min<size_t>(lead < 0x80   ? 1
                                           : lead < 0xe0 ? 2
                                           : lead < 0xf0 ? 3
                                                         : 4,
                                           text.size() - i);
    uint32_t code_point = length == 1 ? lead : lead & (0x7f >> length);
    for (size_t j = 1; j < length; ++j) {
      code_point = (code_point << 6) | (static_cast<unsigned char>(text[i + j]) & 0x3f);
    }
    const int width = ColumnsOf(code_point);
    const bool is_last = i + length == text.size();
    if (used + width > columns - (is_last ? 0 : 1)) {
      out += '~';
      ++used;
      break;
    }
    const bool control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
    out += control ? " " : std::string(text.substr(i, length));
    used += width;
    i += length;
  }
  return pad ? out + std::string(static_cast<size_t>(std::max(0, columns - used)), ' ') : out;
}

int TerminalColumns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40 ? size.ws_col : 160;
}

std::string TitleOf(const v1::RecommendedItem& item) {
  const auto found = item.fields().find(kTitleField);
  return found == item.fields().end() ? item.item_id() : found->second;
}

void PrintAllUnknown(const v1::RecommendResponse& response) {
  PrintUnknown("of the history", response.unknown_item_ids(), response.unknown_item_count());
  PrintUnknown("excluded", response.unknown_exclude_item_ids(),
               response.unknown_exclude_item_count());
  PrintUnknown("of the only ones allowed", response.unknown_only_item_ids(),
               response.unknown_only_item_count());
}

// The items of the history that changed the score most.
void PrintReasons(const v1::RecommendedItem& item, const v1::RecommendResponse& response) {
  constexpr int kReasons = 3;
  std::vector<int> places;
  for (int i = 0; i < std::min(item.contributions_size(), response.explained_item_ids_size());
       ++i) {
    places.push_back(i);
  }
  std::stable_sort(places.begin(), places.end(), [&](int a, int b) {
    return std::abs(item.contributions(a)) > std::abs(item.contributions(b));
  });
  places.resize(std::min<size_t>(places.size(), kReasons));
  for (const int place : places) {
    std::printf("      %+10.4f  from %s\n", item.contributions(place),
                Printable(response.explained_item_ids(place)).c_str());
  }
}

void PrintTable(const v1::RecommendResponse& response, absl::Duration round_trip) {
  std::printf("%4s  %10s  %s  %s\n", "rank", "score", Fit(kTitleField, kTitleColumns).c_str(),
              "id");
  for (int i = 0; i < response.items_size(); ++i) {
    const v1::RecommendedItem& item = response.items(i);
    const auto found = item.fields().find(kTitleField);
    const std::string title = found == item.fields().end() ? "-" : found->second;
    std::printf("%4d  %10.4f  %s  %s\n", i + 1, item.score(), Fit(title, kTitleColumns).c_str(),
                Printable(item.item_id()).c_str());
    PrintReasons(item, response);
  }
  PrintAllUnknown(response);
  const v1::Served& served = response.served();
  const v1::StageTimings& timings = served.timings();
  std::printf(
      "\n%d items at dim %d%s, %s, model %s\n", response.items_size(), served.dim(),
      served.tier().empty() ? "" : absl::StrCat(" (tier ", Printable(served.tier()), ")").c_str(),
      served.exact() ? "exact" : "approximate", Printable(served.model_version()).c_str());
  std::printf("%s in the server (queue %s, encode %s, search %s), %s for the whole call\n",
              MillisecondsText(FromProto(timings.total())).c_str(),
              MillisecondsText(FromProto(timings.queue())).c_str(),
              MillisecondsText(FromProto(timings.encode())).c_str(),
              MillisecondsText(FromProto(timings.search())).c_str(),
              MillisecondsText(round_trip).c_str());
}

// Recall@10 on test, else validation; empty when the checkpoint stores none.
std::string StoredRecall(const v1::SizeInfo& size) {
  const v1::Metrics& metrics = size.has_test() ? size.test() : size.validation();
  for (const v1::MetricsAtCutoff& at : metrics.at()) {
    if (at.k() == 10) {
      return absl::StrFormat("%.4f", at.recall());
    }
  }
  return "";
}

void PrintComparison(const v1::GetModelInfoResponse& info,
                     const std::vector<v1::RecommendResponse>& answers) {
  constexpr int kLabelColumns = 9;
  const int widths = static_cast<int>(answers.size());
  const int columns = std::clamp((TerminalColumns() - kLabelColumns) / widths - 2, 10, 40);
  std::set<std::string> of_widest;
  int rows = 0;
  for (const v1::RecommendedItem& item : answers.back().items()) {
    of_widest.insert(item.item_id());
  }
  for (const v1::RecommendResponse& answer : answers) {
    rows = std::max(rows, answer.items_size());
  }
  const auto print_row = [&](const std::string& label, const std::vector<std::string>& cells) {
    std::string line = Fit(label, kLabelColumns);
    for (const std::string& cell : cells) {
      absl::StrAppend(&line, "  ", Fit(cell, columns));
    }
    std::printf("%s\n", std::string(absl::StripTrailingAsciiWhitespace(line)).c_str());
  };
  const auto cells_of = [&](auto&& cell) {
    std::vector<std::string> cells;
    for (int i = 0; i < widths; ++i) {
      cells.push_back(cell(answers[static_cast<size_t>(i)], info.sizes(i)));
    }
    return cells;
  };

  print_row("rank", cells_of([](const auto& answer, const auto&) {
              return absl::StrCat("dim ", answer.served().dim());
            }));
  for (int row = 0; row < rows; ++row) {
    print_row(absl::StrFormat("%4d", row + 1), cells_of([&](const auto& answer, const auto&) {
                if (row >= answer.items_size()) {
                  return std::string();
                }
                const v1::RecommendedItem& item = answer.items(row);
                return absl::StrCat(of_widest.count(item.item_id()) ? "* " : "  ", TitleOf(item));
              }));
  }
  std::printf("\n");
  print_row("shared *", cells_of([&](const auto& answer, const auto&) {
              int shared = 0;
              for (const v1::RecommendedItem& item : answer.items()) {
                shared += static_cast<int>(of_widest.count(item.item_id()));
              }
              return absl::StrCat(shared, " of ", answers.back().items_size());
            }));
  print_row("server", cells_of([](const auto& answer, const auto&) {
              return MillisecondsText(FromProto(answer.served().timings().total()));
            }));
  print_row("Recall@10",
            cells_of([](const auto&, const auto& size) { return StoredRecall(size); }));
  PrintAllUnknown(answers.back());
  std::printf("\n* among the %d of dim %d. Recall@10 as stored in the checkpoint.\n",
              answers.back().items_size(), answers.back().served().dim());
}

absl::Status RunComparison(const RecommendFlags& flags, const RecommendClient& client,
                           v1::RecommendRequest request) {
  NESTREC_ASSIGN_OR_RETURN(const v1::GetModelInfoResponse info, client.GetModelInfo());
  if (info.sizes().empty()) {
    return absl::InternalError("the server names no sizes");
  }
  std::vector<v1::RecommendResponse> answers;
  for (const v1::SizeInfo& size : info.sizes()) {
    request.set_dim(size.dim());
    NESTREC_ASSIGN_OR_RETURN(v1::RecommendResponse answer, client.Recommend(request));
    answers.push_back(std::move(answer));
  }
  if (!flags.json) {
    PrintComparison(info, answers);
    return absl::OkStatus();
  }
  // One JSON value for the whole.
  std::printf("[\n");
  for (size_t i = 0; i < answers.size(); ++i) {
    std::printf("%s", i == 0 ? "" : ",\n");
    NESTREC_RETURN_IF_ERROR(PrintJson(answers[i]));
  }
  std::printf("]\n");
  return absl::OkStatus();
}

// As the answer to a recommendation, which people read in the same way.
v1::RecommendResponse AsRecommendation(v1::SimilarItemsResponse similar) {
  v1::RecommendResponse response;
  response.mutable_items()->Swap(similar.mutable_items());
  response.mutable_served()->Swap(similar.mutable_served());
  response.mutable_unknown_exclude_item_ids()->Swap(similar.mutable_unknown_exclude_item_ids());
  response.set_unknown_exclude_item_count(similar.unknown_exclude_item_count());
  response.mutable_unknown_only_item_ids()->Swap(similar.mutable_unknown_only_item_ids());
  response.set_unknown_only_item_count(similar.unknown_only_item_count());
  return response;
}

absl::Status RunSimilar(const RecommendFlags& flags, const RecommendClient& client) {
  NESTREC_ASSIGN_OR_RETURN(const v1::SimilarItemsRequest request, SimilarRequestOf(flags.request));
  const absl::Time start = absl::Now();
  NESTREC_ASSIGN_OR_RETURN(v1::SimilarItemsResponse response, client.SimilarItems(request));
  const absl::Duration round_trip = absl::Now() - start;
  if (flags.json) {
    return PrintJson(response);
  }
  PrintTable(AsRecommendation(std::move(response)), round_trip);
  return absl::OkStatus();
}

absl::Status RunRecommend(const RecommendFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags.client));
  const RecommendClient client(std::move(options));
  if (!flags.request.similar_to.empty()) {
    return RunSimilar(flags, client);
  }
  NESTREC_ASSIGN_OR_RETURN(v1::RecommendRequest request, RequestOf(flags.request));
  if (flags.compare) {
    return RunComparison(flags, client, std::move(request));
  }
  const absl::Time start = absl::Now();
  NESTREC_ASSIGN_OR_RETURN(const v1::RecommendResponse response, client.Recommend(request));
  const absl::Duration round_trip = absl::Now() - start;
  if (flags.json) {
    return PrintJson(response);
  }
  PrintTable(response, round_trip);
  return absl::OkStatus();
}

}  // namespace

void AddRecommendCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<RecommendFlags>();
  CLI::App* command = app.add_subcommand("recommend", "Ask a server for recommendations");
  AddClientFlags(*command, flags->client);
  const WidthFlags width = AddRequestFlags(*command, &flags->request);
  command->add_flag("--json", flags->json, "Print the answer as JSON");
  CLI::Option* compare =
      command->add_flag("--compare", flags->compare, "Ask every width and show them side by side");
  compare->excludes(width.dim)->excludes(width.tier)->excludes(width.similar_to);
  command->callback([flags, selected] { *selected = [flags] { return RunRecommend(*flags); }; });
}

}  // namespace nestrec

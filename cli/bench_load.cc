// nestrec bench load: how many calls a second a server answers, and how fast.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/printable.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "server/client.h"
#include "server/load/load_generator.h"
#include "server/load/request_mix.h"
#include "server/load/saturation.h"

namespace nestrec {
namespace {

constexpr absl::Duration kLongestRun = absl::Hours(24);
constexpr double kMostCalls = 50e6;  // of one run, whose times are kept in memory
// How many different requests are sent in turn where histories are drawn.
constexpr int64_t kHistories = 2000;
// A busy generator makes a server look slow.
constexpr double kBusy = 0.9;

struct BenchLoadFlags {
  ClientFlags client;
  int connections = 1;
  std::string model, data;
  std::string rpc = "recommend", arrivals = "poisson";
  std::string duration = "10s", warm_up = "2s", deadline = "1s", within;
  std::string latency_budget;
  LoadOptions load;
  RequestMix mix;
  int64_t history = 50;
  int64_t users = 0;
  bool sweep = false;
  bool json = false;
};

// Flags that CLI11 cannot check by itself.
absl::Status ReadFlags(BenchLoadFlags& flags) {
  constexpr absl::Duration kShortest = absl::Milliseconds(1);
  NESTREC_ASSIGN_OR_RETURN(
      flags.load.duration,
      DurationFlag("--duration", flags.duration, absl::Milliseconds(100), kLongestRun, "20s"));
  NESTREC_ASSIGN_OR_RETURN(
      flags.load.warm_up,
      DurationFlag("--warmup", flags.warm_up, absl::ZeroDuration(), kLongestRun, "2s"));
  NESTREC_ASSIGN_OR_RETURN(flags.load.deadline, DurationFlag("--deadline", flags.deadline,
                                                             kShortest, absl::Hours(1), "1s"));
  flags.load.within = flags.load.deadline;
  if (!flags.latency_budget.empty()) {
    NESTREC_ASSIGN_OR_RETURN(flags.mix.latency_budget,
                             DurationFlag("--latency-budget", flags.latency_budget,
                                          absl::Microseconds(1), absl::Hours(1), "20ms"));
    flags.load.within = std::min(flags.load.within, *flags.mix.latency_budget);
  }
  if (!flags.within.empty()) {
    NESTREC_ASSIGN_OR_RETURN(flags.load.within, DurationFlag("--within", flags.within, kShortest,
                                                             absl::Hours(1), "50ms"));
  }
  flags.load.arrivals = flags.arrivals == "constant" ? Arrivals::kConstant : Arrivals::kPoisson;
  flags.mix.rpc =
      flags.rpc == "info" ? LoadRequest::Rpc::kGetModelInfo : LoadRequest::Rpc::kRecommend;
  flags.mix.sessions = flags.users > 0;
  const double calls =
      flags.load.rate * absl::ToDoubleSeconds(flags.load.duration + flags.load.warm_up);
  if (calls > kMostCalls) {
    return UsageError(absl::InvalidArgumentError(absl::StrFormat(
        "--rate: %.0f calls a second for %s are %.0f calls; at most %.0f fit into "
        "one run, so give a shorter --duration",
        flags.load.rate, absl::FormatDuration(flags.load.duration + flags.load.warm_up), calls,
        kMostCalls)));
  }
  return absl::OkStatus();
}

// What users of the data had, as external ids: the last `length` items of each.
absl::StatusOr<std::vector<ItemIds>> HistoriesOf(const std::string& folder, int64_t count,
                                                 int64_t length, Random& random) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset,
                           Dataset::Load(folder, {.modalities = {}, .load_features = false}));
  std::vector<ItemIds> histories;
  for (int64_t i = 0; i < count; ++i) {
    const auto sequence = dataset->sequence(random.Index(dataset->users()));
    const size_t kept = std::min(sequence.size(), static_cast<size_t>(length));
    ItemIds& history = histories.emplace_back();
    for (const int32_t item : sequence.last(kept)) {
      history.emplace_back(dataset->catalogue->id(item));
    }
  }
  return histories;
}

absl::StatusOr<std::vector<ItemIds>> MakeHistories(const BenchLoadFlags& flags,
                                                   const RecommendClient& client,
                                                   const v1::GetModelInfoResponse& info) {
  Random random(flags.load.seed);
  const int64_t count = flags.users > 0 ? flags.users : kHistories;
  if (!flags.data.empty()) return HistoriesOf(flags.data, count, flags.history, random);
  ItemIds items;
  if (!flags.model.empty()) {
    NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const Checkpoint> checkpoint,
                             Checkpoint::Open(flags.model, {}));
    const Catalogue& catalogue = *checkpoint->catalogue();
    for (int64_t item = 1; item <= catalogue.size(); ++item) {
      items.emplace_back(catalogue.id(item));
    }
  } else {
    NESTREC_ASSIGN_OR_RETURN(items, ItemsOfServer(client, info));
  }
  return SampleHistories(items, count, flags.history, random);
}

std::string Milliseconds(absl::Duration duration) {
  return absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(duration));
}

std::string DimsOf(const LoadReport& report) {
  const auto answers = static_cast<double>(report.latency.count());
  return absl::StrJoin(report.dims, " ", [&](std::string* out, const auto& dim) {
    if (report.dims.size() == 1) {
      absl::StrAppend(out, dim.first);
    } else {
      absl::StrAppendFormat(out, "%d:%.0f%%", dim.first,
                            100 * static_cast<double>(dim.second) / answers);
    }
  });
}

void PrintHeader(const BenchLoadFlags& flags, const v1::GetModelInfoResponse& info) {
  std::printf("%s, model %s (%s, %lld items)\n", flags.client.server.c_str(),
              Printable(info.model_version()).c_str(), Printable(info.model_name()).c_str(),
              static_cast<long long>(info.item_count()));
  if (flags.mix.rpc == LoadRequest::Rpc::kGetModelInfo) {
    std::printf("GetModelInfo");
  } else {
    const std::string width = flags.mix.dim.has_value()    ? absl::StrCat("dim ", *flags.mix.dim)
                              : flags.mix.tier.has_value() ? absl::StrCat("tier ", *flags.mix.tier)
                                                           : "default tier";
    std::printf("Recommend, %s, %s of %lld items", width.c_str(),
                flags.users > 0 ? absl::StrCat(flags.users, " sessions").c_str() : "histories",
                static_cast<long long>(flags.history));
  }
  std::printf("; %s arrivals for %s after %s, %d connection%s, goodput: within %s\n\n",
              flags.arrivals.c_str(), absl::FormatDuration(flags.load.duration).c_str(),
              absl::FormatDuration(flags.load.warm_up).c_str(), flags.connections,
              flags.connections == 1 ? "" : "s", absl::FormatDuration(flags.load.within).c_str());
  std::printf("%10s  %10s  %8s  %9s  %9s  %9s  %9s  %9s  %9s  %s\n", "offered/s", "goodput/s",
              "failed", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "generator", "dims");
}

void PrintRow(const LoadReport& report) {
  const auto failed = static_cast<double>(report.failed() + report.not_sent);
  std::printf("%10.1f  %10.1f  %7.2f%%  %9s  %9s  %9s  %9s  %9s  %8.0f%%  %s\n",
              report.offered_rate(), report.goodput(),
              report.due() == 0 ? 0 : 100 * failed / static_cast<double>(report.due()),
              Milliseconds(report.latency.Quantile(0.5)).c_str(),
              Milliseconds(report.latency.Quantile(0.9)).c_str(),
              Milliseconds(report.latency.Quantile(0.99)).c_str(),
              Milliseconds(report.latency.Quantile(0.999)).c_str(),
              Milliseconds(report.latency.max()).c_str(), 100 * report.generator_cpu,
              DimsOf(report).c_str());
  for (const auto& [code, errors] : report.errors) {
    std::printf("            %lld x %s: %s\n", static_cast<long long>(errors.count),
                absl::StatusCodeToString(code).c_str(), Printable(errors.example).c_str());
  }
  if (report.not_sent > 0) {
    std::printf("            %lld not sent, since too many were on their way\n",
                static_cast<long long>(report.not_sent));
  }
  if (report.generator_cpu > kBusy) {
    std::printf("            the generator had all of its %d core%s busy and may be what limits\n",
                report.generator_cores, report.generator_cores == 1 ? "" : "s");
  }
  std::fflush(stdout);
}

void PrintJson(const LoadReport& report) {
  nlohmann::ordered_json row;
  row["offered_per_second"] = report.offered_rate();
  row["goodput_per_second"] = report.goodput();
  row["within_ms"] = absl::ToDoubleMilliseconds(report.within);
  row["duration_seconds"] = absl::ToDoubleSeconds(report.duration);
  row["answered"] = report.latency.count();
  nlohmann::ordered_json latency;
  const auto quantile = [&](double share) {
    return absl::ToDoubleMilliseconds(report.latency.Quantile(share));
  };
  latency["p50"] = quantile(0.5);
  latency["p90"] = quantile(0.9);
  latency["p99"] = quantile(0.99);
  latency["p99.9"] = quantile(0.999);
  latency["max"] = absl::ToDoubleMilliseconds(report.latency.max());
  latency["mean"] = absl::ToDoubleMilliseconds(report.latency.mean());
  row["latency_ms"] = std::move(latency);
  row["errors"] = nlohmann::ordered_json::object();
  for (const auto& [code, errors] : report.errors) {
    row["errors"][absl::StatusCodeToString(code)] = errors.count;
  }
  row["not_sent"] = report.not_sent;
  row["dims"] = nlohmann::ordered_json::object();
  for (const auto& [dim, count] : report.dims) row["dims"][absl::StrCat(dim)] = count;
  row["sent_late_ms_p99"] = absl::ToDoubleMilliseconds(report.late.Quantile(0.99));
  row["generator_cpu"] = report.generator_cpu;
  std::printf("%s\n", row.dump().c_str());
  std::fflush(stdout);
}

// The error of a run in which nothing was answered: there is nothing to report about.
absl::Status CheckAnswered(const LoadReport& report) {
  if (report.latency.count() > 0 || report.errors.empty()) return absl::OkStatus();
  const auto most = std::max_element(
      report.errors.begin(), report.errors.end(),
      [](const auto& a, const auto& b) { return a.second.count < b.second.count; });
  return absl::Status(most->first, absl::StrCat("none of ", report.due(),
                                                " calls was answered: ", most->second.example));
}

absl::Status Sweep(const BenchLoadFlags& flags, LoadGenerator& generator) {
  LoadOptions load = flags.load;
  bool is_first = true;
  NESTREC_ASSIGN_OR_RETURN(
      const Saturation saturation,
      FindSaturation(
          {.first_rate = flags.load.rate,
           .highest_rate = kMostCalls / absl::ToDoubleSeconds(load.duration + load.warm_up)},
          [&](double rate) -> absl::StatusOr<double> {
            load.rate = rate;
            const LoadReport report = generator.Run(load);
            if (std::exchange(is_first, false)) NESTREC_RETURN_IF_ERROR(CheckAnswered(report));
            flags.json ? PrintJson(report) : PrintRow(report);
            // By chance, a few calls more or less were due than the rate says.
            return report.goodput() * rate / std::max(report.offered_rate(), 1e-9);
          }));
  if (flags.json) {
    nlohmann::ordered_json row;
    row["sustained_per_second"] = saturation.sustained_rate;
    row["peak_goodput_per_second"] = saturation.peak_goodput;
    row["saturation_reached"] = saturation.reached;
    std::printf("%s\n", row.dump().c_str());
  } else {
    std::printf("\nsustained: %.1f calls/s%s; best goodput %.1f/s\n", saturation.sustained_rate,
                saturation.reached ? "" : " and perhaps more", saturation.peak_goodput);
  }
  return absl::OkStatus();
}

absl::Status RunBenchLoad(BenchLoadFlags flags) {
  NESTREC_RETURN_IF_ERROR(ReadFlags(flags));
  NESTREC_ASSIGN_OR_RETURN(const ClientOptions options, ClientOptionsOf(flags.client));
  const RecommendClient client(options);
  NESTREC_ASSIGN_OR_RETURN(const v1::GetModelInfoResponse info, client.GetModelInfo());
  std::vector<ItemIds> histories;
  if (flags.mix.rpc == LoadRequest::Rpc::kRecommend) {
    NESTREC_ASSIGN_OR_RETURN(histories, MakeHistories(flags, client, info));
  }
  const std::vector<LoadRequest> requests = MakeRequests(flags.mix, histories);
  if (flags.mix.rpc == LoadRequest::Rpc::kRecommend) {
    // What is wrong with the requests is wrong with the first.
    v1::RecommendRequest first;
    first.ParseFromString(requests.front().bytes);
    first.clear_latency_budget();
    NESTREC_RETURN_IF_ERROR(client.Recommend(first).status());
  }
  if (flags.users > 0) NESTREC_RETURN_IF_ERROR(FillSessions(client, histories));
  // The server keeps nothing of a test.
  const absl::Cleanup forget = [&] {
    if (flags.users > 0) ForgetSessions(client, histories.size()).IgnoreError();
  };
  LoadGenerator generator({.client = options, .connections = flags.connections}, requests);
  if (!flags.json) PrintHeader(flags, info);
  if (flags.sweep) return Sweep(flags, generator);
  const LoadReport report = generator.Run(flags.load);
  NESTREC_RETURN_IF_ERROR(CheckAnswered(report));
  flags.json ? PrintJson(report) : PrintRow(report);
  return absl::OkStatus();
}

void AddMixFlags(CLI::App& command, BenchLoadFlags& flags) {
  command
      .add_option("--rpc", flags.rpc,
                  "recommend, or info: GetModelInfo, which runs no model: what a call costs by "
                  "itself")
      ->check(CLI::IsMember({"recommend", "info"}))
      ->capture_default_str();
  CLI::Option* dim = command.add_option("--dim", flags.mix.dim, "Width to ask for")
                         ->check(WholeNumber(1, 1 << 20));
  command.add_option("--tier", flags.mix.tier, "Tier to ask for")->excludes(dim);
  command.add_option("--latency-budget", flags.latency_budget,
                     "Send this latency budget, such as 20ms (default: none)");
  command.add_option("--min-quality", flags.mix.min_quality, "Send this min_quality: 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->excludes(dim);
  command.add_option("--k", flags.mix.k, "Items to ask for (default: the server's)")
      ->check(WholeNumber(1, 1'000'000));
  command.add_option("--history", flags.history, "Items of a history")
      ->check(WholeNumber(0, 1000))
      ->capture_default_str();
  command
      .add_option("--users", flags.users,
                  "Ask by user id, for so many users whose sessions are filled first and deleted "
                  "at the end; 0: send histories")
      ->check(WholeNumber(0, 10'000'000))
      ->capture_default_str();
  CLI::Option* model =
      command.add_option("--model", flags.model,
                         "Checkpoint from whose items histories are drawn (default: the server's "
                         "best items for an empty history)");
  command
      .add_option("--data", flags.data,
                  "Data folder whose users' last items are the histories, instead of --model")
      ->excludes(model);
}

}  // namespace

void AddBenchLoadCommand(CLI::App& bench, Command* selected) {
  auto flags = std::make_shared<BenchLoadFlags>();
  CLI::App* command = bench.add_subcommand(
      "load", "Send a server calls at a fixed rate, whether or not it keeps up");
  AddClientFlags(*command, flags->client);
  command->add_option("--rate", flags->load.rate, "Calls per second; with --sweep, to begin with")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  command->add_flag("--sweep", flags->sweep,
                    "Raise the rate until goodput falls behind, and find where");
  command->add_option("--duration", flags->duration, "How long, for each rate")
      ->capture_default_str();
  command->add_option("--warmup", flags->warm_up, "Before it, without counting")
      ->capture_default_str();
  command
      ->add_option("--arrivals", flags->arrivals,
                   "poisson: independent of each other, or constant: evenly spaced")
      ->check(CLI::IsMember({"constant", "poisson"}))
      ->capture_default_str();
  command->add_option("--connections", flags->connections, "Connections")
      ->check(WholeNumber(1, 10'000))
      ->capture_default_str();
  command->add_option("--deadline", flags->deadline, "Of each call, from when it is due")
      ->capture_default_str();
  command->add_option("--within", flags->within,
                      "Answers later than this are no goodput (default: the latency budget, else "
                      "the deadline)");
  command
      ->add_option("--most-on-their-way", flags->load.most_on_their_way,
                   "Calls without an answer; what is due beyond that is not sent, and counted")
      ->check(WholeNumber(1, 1'000'000))
      ->capture_default_str();
  AddMixFlags(*command, *flags);
  command->add_option("--seed", flags->load.seed, "Chooses times and histories")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "A JSON object per run instead of the table");
  command->callback([flags, selected] { *selected = [flags] { return RunBenchLoad(*flags); }; });
}

}  // namespace nestrec

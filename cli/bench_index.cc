// nestrec bench index: which index, with which search settings, reaches a recall at the least cost
// on a model's own items.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/nested_sizes.h"
#include "base/progress_bar.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "base/svg_chart.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "index/cpu_check.h"
#include "index/index_sweep.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/split.h"

namespace nestrec {
namespace {

struct BenchIndexFlags {
  std::string model;
  std::string data;
  std::string dims;
  std::vector<std::string> factories;
  int64_t k = 10;
  double recall = 0.95;
  int64_t queries = 200;
  uint64_t seed = 1;
  bool all = false;
  bool json = false;
  std::string plot;
};

// Vectors to search for, [2 * count, D]: the second half is for fitting settings to.
struct Queries {
  std::vector<float> vectors;
  int64_t count = 0;
  std::string origin;  // for people
};

// What users of the data had before their test item.
absl::StatusOr<Queries> FromHistories(const BenchIndexFlags& flags, const Checkpoint& checkpoint,
                                      Random& random) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset,
                           Dataset::Load(flags.data, {.modalities = {}, .load_features = false}));
  if (dataset->items() != checkpoint.info().items) {
    return absl::InvalidArgumentError(
        absl::StrCat(flags.data, " has ", dataset->items(), " items and ", flags.model, " has ",
                     checkpoint.info().items, "; give the data folder that it was trained on"));
  }
  std::vector<int64_t> users;
  for (int64_t user = 0; user < dataset->users(); ++user) {
    if (IsEvaluated(dataset->sequence(user))) users.push_back(user);
  }
  if (users.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(flags.data, " has ", users.size(),
                                                   " users with ", kMinEvaluatedEvents,
                                                   " items; 2 are needed; leave --data out"));
  }
  random.Shuffle(std::span(users));
  if (users.size() % 2 == 1) users.pop_back();
  users.resize(std::min(users.size(), static_cast<size_t>(2 * flags.queries)));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<const Encoder> encoder,
                           Encoder::Create(checkpoint.view(), nullptr));
  Queries queries{.vectors = {},
                  .count = static_cast<int64_t>(users.size()) / 2,
                  .origin = absl::StrCat("histories of ", flags.data)};
  const auto dim = static_cast<size_t>(checkpoint.sizes().max_dim());
  queries.vectors.resize(users.size() * dim);
  for (size_t i = 0; i < users.size(); ++i) {
    const History history = HistoryOf(dataset->sequence(users[i]), Split::kTest);
    NESTREC_RETURN_IF_ERROR(encoder->Encode(std::span(&history, 1), checkpoint.sizes().levels(),
                                            std::span(queries.vectors).subspan(i * dim, dim)));
  }
  return queries;
}

Queries FromItems(const BenchIndexFlags& flags, const LevelVectors& items, Random& random) {
  Queries queries{.vectors = {}, .count = flags.queries, .origin = "vectors of items"};
  for (int64_t i = 0; i < 2 * flags.queries; ++i) {
    const int64_t item = 1 + random.Index(items.items());
    for (int level = 0; level < items.sizes.levels(); ++level) {
      const std::span<const float> part = items.row(level, item);
      queries.vectors.insert(queries.vectors.end(), part.begin(), part.end());
    }
  }
  return queries;
}

// A narrow query is the beginning of a wide one.
std::vector<float> Cut(const std::vector<float>& queries, int from, int dim) {
  std::vector<float> cut;
  for (auto row = queries.begin(); row != queries.end(); row += from) {
    cut.insert(cut.end(), row, row + dim);
  }
  return cut;
}

absl::StatusOr<std::vector<int>> DimsOf(const BenchIndexFlags& flags, const NestedSizes& sizes) {
  if (flags.dims.empty()) {
    return sizes.values();
  }
  const absl::StatusOr<NestedSizes> dims = NestedSizes::Parse(flags.dims);
  if (!dims.ok()) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat("--dims: ", absl::StripPrefix(dims.status().message(), "sizes: "))));
  }
  for (const int dim : dims->values()) {
    if (const auto levels = sizes.LevelsOf(dim); !levels.ok()) {
      return UsageError(absl::InvalidArgumentError(absl::StrCat(
          "--dims: ", dim, "; the sizes of ", flags.model, " are ", sizes.ToString())));
    }
  }
  return dims->values();
}

std::string Settings(const SweepPoint& point) {
  if (point.candidates == 0) {
    return point.parameters;
  }
  return absl::StrCat(point.parameters, point.parameters.empty() ? "" : " ",
                      "candidates=", point.candidates);
}

// The tier that serves with a point's settings.
std::string TierOf(const SweepPoint& point, int dim) {
  std::string tier =
      absl::StrCat("tiers { name: \"...\" dim: ", dim, " index: \"", point.factory, "\"");
  if (!point.parameters.empty()) {
    absl::StrAppend(&tier, " index_parameters: \"", point.parameters, "\"");
  }
  if (point.candidates != 0) {
    absl::StrAppend(&tier, " index_candidates: ", point.candidates);
  }
  return tier + " }";
}

void PrintTable(const IndexSweep& sweep, int dim, const BenchIndexFlags& flags) {
  std::printf("\ndim %d: Flat answers %.0f queries/s\n", dim, sweep.flat_queries_per_second);
  std::printf("%-24s  %-28s  %7s  %10s  %7s  %12s  %8s\n", "index", "settings", "recall",
              "queries/s", "x Flat", "bytes", "build s");
  for (const SweepIndex& index : sweep.indexes) {
    if (!index.skipped.empty()) {
      std::printf("%-24s  skipped: %s\n", index.factory.c_str(), index.skipped.c_str());
      continue;
    }
    IndexSweep own;
    std::copy_if(sweep.points.begin(), sweep.points.end(), std::back_inserter(own.points),
                 [&](const SweepPoint& point) { return point.factory == index.factory; });
    std::vector<SweepPoint> shown = own.points;
    if (!flags.all) {
      const SweepPoint* cheapest = CheapestWith(own, flags.recall);
      if (cheapest == nullptr) {  // what comes nearest
        cheapest = &*std::max_element(
            own.points.begin(), own.points.end(),
            [](const SweepPoint& a, const SweepPoint& b) { return a.recall < b.recall; });
      }
      shown = {*cheapest};
    }
    for (const SweepPoint& point : shown) {
      std::printf("%-24s  %-28s  %7.4f  %10.0f  %7.2f  %12lld  %8.2f%s\n", point.factory.c_str(),
                  Settings(point).c_str(), point.recall, point.queries_per_second, point.times_flat,
                  static_cast<long long>(index.bytes), index.build_seconds,
                  point.recall < flags.recall ? "  too few" : "");
    }
  }
  if (const SweepPoint* best = CheapestWith(sweep, flags.recall)) {
    std::printf("cheapest with recall@%lld >= %g: %s\n", static_cast<long long>(flags.k),
                flags.recall, TierOf(*best, dim).c_str());
  }
}

void PrintJson(const IndexSweep& sweep, int dim, const BenchIndexFlags& flags) {
  const SweepPoint* best = CheapestWith(sweep, flags.recall);
  for (const SweepPoint& point : sweep.points) {
    nlohmann::ordered_json row;
    row["dim"] = dim;
    row["k"] = flags.k;
    row["index"] = point.factory;
    row["index_parameters"] = point.parameters;
    row["index_candidates"] = point.candidates;
    row["recall"] = point.recall;
    row["queries_per_second"] = point.queries_per_second;
    row["times_flat"] = point.times_flat;
    row["cheapest"] = &point == best;
    for (const SweepIndex& index : sweep.indexes) {
      if (index.factory == point.factory) {
        row["bytes"] = index.bytes;
        row["build_seconds"] = index.build_seconds;
      }
    }
    std::printf("%s\n", row.dump().c_str());
  }
}

void AddSeries(const IndexSweep& sweep, int dim, Chart& chart) {
  std::map<std::string, std::vector<std::pair<double, double>>> of_index;
  for (const SweepPoint& point : sweep.points) {
    of_index[point.factory].emplace_back(point.queries_per_second, point.recall);
  }
  for (auto& [factory, points] : of_index) {
    std::sort(points.begin(), points.end());
    // What no other setting beats in both.
    std::vector<std::pair<double, double>> best;
    double recall = -1;
    for (auto point = points.rbegin(); point != points.rend(); ++point) {
      if (point->second > recall) {
        best.insert(best.begin(), *point);
        recall = point->second;
      }
    }
    chart.series.push_back({absl::StrCat("dim ", dim, " ", factory), std::move(best)});
  }
}

absl::Status RunBenchIndex(const BenchIndexFlags& flags) {
  NESTREC_RETURN_IF_ERROR(CheckCpu());
  if (!flags.plot.empty()) NESTREC_RETURN_IF_ERROR(CheckWritable(flags.plot));
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const Checkpoint> checkpoint,
                           Checkpoint::Open(flags.model, {}));
  const ModelView& view = checkpoint->view();
  const LevelVectors items{.sizes = view.sizes, .rows = view.item_rows, .levels = view.items};
  NESTREC_ASSIGN_OR_RETURN(const std::vector<int> dims, DimsOf(flags, view.sizes));
  Random random(flags.seed);
  Queries queries;
  if (flags.data.empty()) {
    queries = FromItems(flags, items, random);
  } else {
    NESTREC_ASSIGN_OR_RETURN(queries, FromHistories(flags, *checkpoint, random));
  }
  if (!flags.json) {
    std::printf("%lld items, %lld queries (%s), k %lld, one core, FAISS for %s\n",
                static_cast<long long>(items.items()), static_cast<long long>(queries.count),
                queries.origin.c_str(), static_cast<long long>(flags.k),
                std::string(FaissInstructionSet()).c_str());
  }
  ProgressBar bar(stderr);
  Chart chart{.title = absl::StrFormat("%s: recall@%d against queries/s, one core",
                                       checkpoint->info().name, flags.k),
              .x_label = "queries/s",
              .y_label = "recall",
              .log10_x = true};
  for (size_t i = 0; i < dims.size(); ++i) {
    const int dim = dims[i];
    bar.Start(absl::StrCat("dim ", dim), static_cast<int64_t>(dims.size()));
    SweepOptions options{.levels = *view.sizes.LevelsOf(dim), .k = flags.k};
    options.factories =
        flags.factories.empty() ? DefaultFactories(items.items(), dim) : flags.factories;
    options.progress = [&](const std::string& what) { bar.Update(static_cast<int64_t>(i), what); };
    const std::vector<float> cut = Cut(queries.vectors, view.sizes.max_dim(), dim);
    const auto measured = std::span(cut).first(cut.size() / 2);
    options.examples = std::span(cut).subspan(cut.size() / 2);
    NESTREC_ASSIGN_OR_RETURN(const IndexSweep sweep, SweepIndexes(items, measured, options));
    bar.Clear();
    if (flags.json) {
      PrintJson(sweep, dim, flags);
    } else {
      PrintTable(sweep, dim, flags);
    }
    AddSeries(sweep, dim, chart);
  }
  return flags.plot.empty() ? absl::OkStatus() : WriteFileAtomically(flags.plot, RenderSvg(chart));
}

}  // namespace

void AddBenchIndexCommand(CLI::App& bench, Command* selected) {
  auto flags = std::make_shared<BenchIndexFlags>();
  CLI::App* command = bench.add_subcommand(
      "index", "Find the cheapest index and search settings that reach a recall");
  command->add_option("--model", flags->model, "Checkpoint")->required();
  command->add_option("--data", flags->data,
                      "Data folder, whose histories are the queries; none: items of the model are");
  command->add_option("--dims", flags->dims, "Widths, such as 64,256 (default: all)");
  command
      ->add_option(
          "--index", flags->factories,
          "A FAISS factory string, or nested, to try; may be repeated (default: what suits "
          "the number of items)")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--k", flags->k, "How many items a query asks for")
      ->check(WholeNumber(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--recall", flags->recall, "Share of the true best k to reach")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--queries", flags->queries, "How many queries")
      ->check(WholeNumber(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "Chooses the queries")->capture_default_str();
  command->add_flag("--all", flags->all, "Show every setting that was tried");
  command->add_flag("--json", flags->json, "One JSON object per setting instead of the table");
  command->add_option("--plot", flags->plot,
                      "Also draw recall against queries/s into this SVG file");
  command->callback([flags, selected] { *selected = [flags] { return RunBenchIndex(*flags); }; });
}

}  // namespace nestrec

#include "index/index_sweep.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "index/faiss_index.h"
#include "index/nested_index.h"

namespace nestrec {
namespace {

using Answers = std::vector<std::vector<ScoredItem>>;

// Recall beyond which a wider look is only slower.
constexpr double kComplete = 0.9999;
constexpr absl::string_view kNested = "nested";

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The queries of a sweep, and the true answers to them.
class Trial {
 public:
  Trial(std::span<const float> queries, int dim, const SweepOptions& options)
      : queries_(queries), dim_(static_cast<size_t>(dim)), options_(options) {}

  // Queries per second of the fastest round; the answers of the last one go to `answers`.
  absl::StatusOr<double> Measure(const ItemIndex& index, Answers& answers) const {
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const absl::Cleanup restore = [threads] { omp_set_num_threads(threads); };
    const size_t count = queries_.size() / dim_;
    const double start = Now();
    double best = 0;
    do {
      answers.clear();
      const double round = Now();
      for (size_t i = 0; i < count; ++i) {
        NESTREC_ASSIGN_OR_RETURN(
            SearchResult result,
            index.Search(queries_.subspan(i * dim_, dim_),
                         {.k = options_.k, .filter = nullptr, .min_score = {}}));
        answers.push_back(std::move(result.items));
      }
      best = std::max(best, static_cast<double>(count) / std::max(Now() - round, 1e-9));
    } while (Now() - start < options_.seconds_per_setting);
    return best;
  }

  static double Recall(const Answers& answers, const Answers& truth) {
    int64_t found = 0;
    int64_t wanted = 0;
    for (size_t i = 0; i < truth.size(); ++i) {
      absl::flat_hash_set<int32_t> best;
      for (const ScoredItem& item : truth[i]) best.insert(item.item);
      wanted += static_cast<int64_t>(best.size());
      for (const ScoredItem& item : answers[i]) found += best.contains(item.item) ? 1 : 0;
    }
    return wanted == 0 ? 1 : static_cast<double>(found) / static_cast<double>(wanted);
  }

 private:
  std::span<const float> queries_;
  size_t dim_;
  const SweepOptions& options_;
};

// Settings of one kind of index from cheap to costly.
struct Ladder {
  std::string parameter;    // "nprobe", "efSearch"; empty: none
  std::vector<int> values;  // of it
  std::vector<int> candidates;
};

Ladder LadderFor(absl::string_view factory, int64_t k, int64_t items) {
  Ladder ladder;
  const size_t ivf = factory.find("IVF");
  if (ivf != absl::string_view::npos) {
    int lists = 0;
    const size_t end = factory.find_first_not_of("0123456789", ivf + 3);
    if (!absl::SimpleAtoi(factory.substr(ivf + 3, end - ivf - 3), &lists)) lists = 1;
    ladder.parameter = "nprobe";
    for (int value = 1; value <= lists; value *= 2) ladder.values.push_back(value);
  } else if (absl::StrContains(factory, "HNSW")) {
    ladder.parameter = "efSearch";
    for (int value = 16; value <= 2048 && value < items; value *= 2) ladder.values.push_back(value);
  }
  if (ladder.values.empty()) ladder.values.push_back(0);
  ladder.candidates = {0};
  if (absl::StrContains(factory, "PQ") || absl::StrContains(factory, "SQ")) {
    for (const int64_t times : {4, 16, 64}) {
      if (times * k * 4 <= items) ladder.candidates.push_back(static_cast<int>(times * k));
    }
  }
  return ladder;
}

// Measures a point and adds it.
absl::Status AddPoint(const Trial& trial, const Answers& truth, const ItemIndex& index,
                      SweepPoint point, IndexSweep& sweep) {
  Answers answers;
  NESTREC_ASSIGN_OR_RETURN(point.queries_per_second, trial.Measure(index, answers));
  point.recall = Trial::Recall(answers, truth);
  point.times_flat = point.queries_per_second / sweep.flat_queries_per_second;
  sweep.points.push_back(std::move(point));
  return absl::OkStatus();
}

absl::Status SweepNested(const LevelVectors& vectors, const Trial& trial, const Answers& truth,
                         const SweepOptions& options, IndexSweep& sweep) {
  const double start = Now();
  NESTREC_ASSIGN_OR_RETURN(
      const std::shared_ptr<const NestedIndex> nested,
      NestedIndex::Create(vectors.Prefix(options.levels),
                          {.queries = options.examples, .first_levels = options.levels}, nullptr));
  const double build_seconds = Now() - start;
  int64_t bytes = 0;
  for (const float recall : {0.8f, 0.9f, 0.95f, 0.99f, 0.999f, 1.0f}) {
    SweepPoint point{.factory = std::string(kNested),
                     .parameters = recall < 1 ? absl::StrCat("recall=", recall) : ""};
    if (options.progress != nullptr) {
      options.progress(absl::StrCat(point.factory, " ", point.parameters));
    }
    NESTREC_ASSIGN_OR_RETURN(
        const std::unique_ptr<const ItemIndex> index,
        NestedIndex::AtLevels(nested, options.levels, {.recall = recall, .candidates = 0}));
    bytes = index->bytes();
    NESTREC_RETURN_IF_ERROR(AddPoint(trial, truth, *index, std::move(point), sweep));
  }
  sweep.indexes.push_back({.factory = std::string(kNested),
                           .bytes = bytes,
                           .build_seconds = build_seconds,
                           .skipped = {}});
  return absl::OkStatus();
}

absl::Status SweepOne(const Trial& trial, const Answers& truth, const SweepOptions& options,
                      TunableFaissIndex& index, const std::string& factory, IndexSweep& sweep) {
  const Ladder ladder = LadderFor(factory, options.k, index.items());
  for (const int candidates : ladder.candidates) {
    for (const int value : ladder.values) {
      SweepPoint point{
          .factory = factory,
          .parameters = ladder.parameter.empty() ? "" : absl::StrCat(ladder.parameter, "=", value),
          .candidates = candidates};
      if (options.progress != nullptr) {
        options.progress(absl::StrCat(factory, " ", point.parameters));
      }
      NESTREC_RETURN_IF_ERROR(index.Tune(point.parameters, candidates));
      NESTREC_RETURN_IF_ERROR(AddPoint(trial, truth, index, std::move(point), sweep));
      if (sweep.points.back().recall >= kComplete) {
        break;
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<IndexSweep> SweepIndexes(const LevelVectors& vectors, std::span<const float> queries,
                                        const SweepOptions& options) {
  if (options.k < 1) {
    return absl::InvalidArgumentError(absl::StrCat("k is ", options.k, "; it must be at least 1"));
  }
  IndexSweep sweep;
  NESTREC_ASSIGN_OR_RETURN(const auto flat,
                           BuildTunableFaissIndex(vectors, options.levels, {}, nullptr));
  if (queries.empty() || queries.size() % static_cast<size_t>(flat->dim()) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the queries have ", queries.size(), " values; each has ", flat->dim()));
  }
  const Trial trial(queries, flat->dim(), options);
  if (options.progress != nullptr) {
    options.progress("Flat");
  }
  Answers truth;
  NESTREC_ASSIGN_OR_RETURN(sweep.flat_queries_per_second, trial.Measure(*flat, truth));
  sweep.indexes.push_back(
      {.factory = "Flat", .bytes = flat->bytes(), .build_seconds = 0, .skipped = {}});
  sweep.points.push_back({.factory = "Flat",
                          .parameters = {},
                          .candidates = 0,
                          .recall = 1,
                          .queries_per_second = sweep.flat_queries_per_second,
                          .times_flat = 1});
  for (const std::string& factory : options.factories) {
    if (options.progress != nullptr) {
      options.progress(absl::StrCat("building ", factory));
    }
    if (factory == kNested) {
      NESTREC_RETURN_IF_ERROR(SweepNested(vectors, trial, truth, options, sweep));
      continue;
    }
    const double start = Now();
    auto index = BuildTunableFaissIndex(vectors, options.levels, {.factory = factory}, nullptr);
    SweepIndex about{.factory = factory, .bytes = 0, .build_seconds = Now() - start, .skipped = {}};
    if (absl::IsInvalidArgument(index.status())) {
      about.skipped = std::string(index.status().message());
      sweep.indexes.push_back(std::move(about));
      continue;
    }
    NESTREC_RETURN_IF_ERROR(index.status());
    about.bytes = (*index)->bytes();
    sweep.indexes.push_back(std::move(about));
    NESTREC_RETURN_IF_ERROR(SweepOne(trial, truth, options, **index, factory, sweep));
  }
  return sweep;
}

const SweepPoint* CheapestWith(const IndexSweep& sweep, double recall) {
  const SweepPoint* best = nullptr;
  for (const SweepPoint& point : sweep.points) {
    if (point.recall >= recall &&
        (best == nullptr || point.queries_per_second > best->queries_per_second)) {
      best = &point;
    }
  }
  return best;
}

std::vector<std::string> DefaultFactories(int64_t items, int dim) {
  std::vector<std::string> factories = {std::string(kNested), "HNSW32"};
  // About four lists per square root of the items, which need 39 examples each to be trained well.
  const auto lists = std::bit_floor(static_cast<uint64_t>(std::max(
      1.0, std::min(4 * std::sqrt(static_cast<double>(items)), static_cast<double>(items) / 39))));
  if (lists >= 16) {
    factories.push_back(absl::StrCat("IVF", lists, ",Flat"));
    factories.push_back(absl::StrCat("IVF", lists, ",SQ8"));
  }
  factories.push_back("SQ8");
  // 4-bit codes of pairs of columns, scanned from registers.
  if (items >= 16 * 39 && dim % 4 == 0) {
    factories.push_back(absl::StrCat("PQ", dim / 2, "x4fs"));
    if (lists >= 16) {
      factories.push_back(absl::StrCat("IVF", lists, ",PQ", dim / 2, "x4fs"));
    }
  }
  return factories;
}

}  // namespace nestrec

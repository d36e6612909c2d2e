// What a search costs, in one run on the same vectors: the nested index, FAISS's flat scan, and one
// matrix product with a top-k pass after it.
//
//   index_bench --model m.safetensors                       the model's own items
//   index_bench --model m.safetensors --data folder --items 1000000 --k 100 [--vectors folder]
//
// Items beyond the model's own are samples from a mixture of Gaussians fitted to its items
// (bench/item_mixture.h). Queries are the encoder's vectors of users' histories (--data), or of
// random ones; the first --examples of them are given to the index, the others are measured. One
// core unless --threads says more. Methods take turns in every round, so that noise falls on all
// alike; figures are medians, ratios are of one run. --vectors keeps items.npy and queries.npy in a
// folder for other programs (bench/index_peers.py) and for the next run, --codes the nested index's
// codes of every width, which the next run maps.
//
//   index_bench --model m.safetensors --data folder --items 200000 --sweep "IVF1024,Flat HNSW32 SQ8
//   nested"
//
// finds, of each of these indexes, the search settings that reach --recall at the least cost.
//
//   index_bench --model m.safetensors --vectors folder --pipe
//
// searches when another program says so, so that its methods and these take turns: ServePipe below
// has the protocol, bench/index_peers.py is such a program.
#include <faiss/IndexFlat.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "bench/index_problem.h"
#include "bench/sweep_table.h"
#include "bench/timing.h"
#include "index/aligned_array.h"
#include "index/nested_index.h"
#include "index/nested_search.h"
#include "index/reduced_view.h"
#include "model/gemm.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Flags : ProblemOptions {
  std::string codes;
  std::string only;
  std::string sweep;
  int64_t batch = 32;
  int k = 100;
  int threads = 1;
  float recall = 0.99f;
  bool faiss = true;
  bool json = false;
  bool pipe = false;
};

double Seconds(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

double ResidentBytes() {
  FILE* const file = std::fopen("/proc/self/statm", "r");
  long long pages = 0;
  if (file != nullptr) {
    if (std::fscanf(file, "%*d %lld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return static_cast<double>(pages) * 4096;
}

// What one core reads from memory, in bytes a second.
double MemoryBandwidth() {
  AlignedArray<uint64_t> values(size_t{1} << 26);
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const auto start = Clock::now();
    uint64_t sums[8] = {};
    for (size_t i = 0; i < values.size(); i += 8) {
      for (size_t lane = 0; lane < 8; ++lane) sums[lane] += values[i + lane];
    }
    const double seconds = Seconds(start);
    uint64_t sum = 0;
    for (const uint64_t lane : sums) sum += lane;
    if (sum == 0) best = std::max(best, static_cast<double>(values.bytes()) / seconds);
  }
  return best;
}

struct Method {
  std::string name;
  int64_t batch = 1;
  int64_t value_bytes = sizeof(float);
  double bytes = 0;  // that it holds beside the vectors that all read
  // Answers queries from `begin`; item numbers, [batch, k].
  std::function<absl::Status(int64_t begin, std::vector<int32_t>& found)> search;
  std::vector<double> seconds;  // a query
  double bytes_read = 0;        // a query, summed
  int64_t found = 0;            // of the true best
  int64_t wanted = 0;
};

// One product for the whole batch, then a pass that keeps the best of each row.
void ProductSearch(const Problem& problem, const float* items, int64_t begin, int64_t batch,
                   int64_t k, std::vector<float>& scores, std::vector<int32_t>& found) {
  const int64_t n = problem.items;
  const int64_t dim = problem.dim;
  scores.resize(static_cast<size_t>(batch * n));
  Gemm(Op::kNone, Op::kTranspose, batch, n, dim, problem.queries.values.data() + begin * dim, dim,
       items, dim, 0, scores.data(), n);
  std::vector<int32_t> order;
  for (int64_t q = 0; q < batch; ++q) {
    const float* const row = scores.data() + q * n;
    order.clear();
    float least = -std::numeric_limits<float>::infinity();
    const auto better = [&](int32_t a, int32_t b) { return row[a] > row[b]; };
    for (int64_t i = 0; i < n; ++i) {
      if (row[i] <= least) continue;
      order.push_back(static_cast<int32_t>(i));
      if (static_cast<int64_t>(order.size()) == 4 * k) {
        std::nth_element(order.begin(), order.begin() + k, order.end(), better);
        order.resize(static_cast<size_t>(k));
        least = row[*std::max_element(order.begin(), order.end(), better)];
      }
    }
    std::sort(order.begin(), order.end(), better);
    for (int64_t i = 0; i < std::min<int64_t>(k, static_cast<int64_t>(order.size())); ++i) {
      found.push_back(order[static_cast<size_t>(i)] + 1);
    }
  }
}

// Answers line by line until its input ends. First line out: a JSON object with the names of the
// methods that search for one query, and what each holds. Then for every line in, "<method's place>
// <query's row>", a line out: seconds, and the numbers of the items that were found.
absl::Status ServePipe(std::span<const Method> methods, int64_t queries) {
  std::vector<const Method*> served;
  Json ready;
  for (const Method& method : methods) {
    if (method.batch != 1) continue;
    served.push_back(&method);
    ready["methods"].push_back({{"name", method.name}, {"bytes", method.bytes}});
  }
  std::printf("%s\n", ready.dump().c_str());
  std::fflush(stdout);
  long long place = 0;
  long long row = 0;
  while (std::scanf("%lld %lld", &place, &row) == 2) {
    if (place < 0 || place >= static_cast<long long>(served.size()) || row < 0 || row >= queries) {
      return absl::InvalidArgumentError(absl::StrCat("there is no method ", place, " or query ",
                                                     row, " of ", served.size(), " and ", queries));
    }
    std::vector<int32_t> found;
    const auto start = Clock::now();
    NESTREC_RETURN_IF_ERROR(served[static_cast<size_t>(place)]->search(row, found));
    std::printf("%.9f %s\n", Seconds(start), absl::StrJoin(found, " ").c_str());
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  omp_set_num_threads(std::max(2, flags.threads));  // preparations may use more
  NESTREC_ASSIGN_OR_RETURN(Problem problem, MakeProblem(flags));
  if (!flags.sweep.empty()) {
    problem.rows = {};
    problem.owner = nullptr;
    return PrintSweep(problem, {.factories = absl::StrSplit(flags.sweep, ' ', absl::SkipEmpty()),
                                .queries = flags.queries,
                                .k = flags.k,
                                .recall = static_cast<double>(flags.recall),
                                .json = flags.json});
  }
  const int64_t n = problem.items;
  const int64_t dim = problem.dim;
  const int levels = problem.sizes.levels();
  const int64_t k = std::min<int64_t>(flags.k, n);
  const int64_t examples = std::max<int64_t>(0, problem.queries.rows - flags.queries);
  std::unique_ptr<faiss::IndexFlatIP> flat;
  if (flags.faiss) {
    flat = std::make_unique<faiss::IndexFlatIP>(dim);
    flat->add(n, problem.rows.data());
    problem.rows = {};  // FAISS's copy serves the product too
    problem.owner = nullptr;
  }
  const auto example_queries =
      std::span<const float>(problem.queries.values).first(static_cast<size_t>(examples * dim));
  CodesTimes times;
  NESTREC_ASSIGN_OR_RETURN(auto codes, MakeCodes(problem, example_queries, flags.codes, times));
  // The same codes again, for an index without views in fewer columns.
  std::vector<std::unique_ptr<const NestedCodes>> same_codes;
  for (const auto& of_width : codes) {
    same_codes.push_back(NestedCodes::FromParts(of_width->vectors(), of_width->parts()));
  }
  omp_set_num_threads(flags.threads);
  auto start = Clock::now();
  NESTREC_ASSIGN_OR_RETURN(
      const auto nested,
      NestedIndex::CreateOf(std::move(codes), {.queries = example_queries}, nullptr));
  const double choose_seconds = Seconds(start);
  start = Clock::now();
  NESTREC_ASSIGN_OR_RETURN(const NestedSearchOptions approximate,
                           nested->FindOptions(levels, k, {.recall = flags.recall}));
  const double tune_seconds = Seconds(start);
  // Whether or not the index chose it.
  start = Clock::now();
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<const ReducedView> view,
                           ReducedView::Create(problem.view()));
  const double view_seconds = Seconds(start);
  NESTREC_ASSIGN_OR_RETURN(
      const auto without_view,
      NestedIndex::CreateOf(std::move(same_codes), {.queries = example_queries, .reduce = false},
                            nullptr));

  std::vector<Method> methods;
  const auto query = [&](int64_t i) {
    return std::span<const float>(problem.queries.values)
        .subspan(static_cast<size_t>(i * dim), static_cast<size_t>(dim));
  };
  if (flat != nullptr) {
    for (const int64_t batch : {int64_t{1}, flags.batch}) {
      methods.push_back({.name = "faiss IndexFlatIP",
                         .batch = batch,
                         .bytes = static_cast<double>(n * dim * 4),
                         .search = [&, batch](int64_t begin, std::vector<int32_t>& found) {
                           std::vector<float> scores(static_cast<size_t>(batch * k));
                           std::vector<int64_t> labels(scores.size());
                           flat->search(batch, query(begin).data(), k, scores.data(),
                                        labels.data());
                           for (const int64_t label : labels) {
                             found.push_back(static_cast<int32_t>(label + 1));
                           }
                           return absl::OkStatus();
                         }});
    }
  }
  std::vector<float> product_scores;
  for (const int64_t batch : {int64_t{1}, flags.batch}) {
    methods.push_back({.name = "matrix product, top-k",
                       .batch = batch,
                       .bytes = static_cast<double>(n * dim * 4),
                       .search = [&, batch](int64_t begin, std::vector<int32_t>& found) {
                         ProductSearch(problem,
                                       flat != nullptr ? flat->get_xb() : problem.rows.data(),
                                       begin, batch, k, product_scores, found);
                         return absl::OkStatus();
                       }});
  }
  NestedSearchStats last_stats;
  NestedScratch view_scratch;
  const auto nested_method = [&](const std::string& name, NestedSearchOptions how) {
    return Method{.name = name,
                  .value_bytes = problem.view().value_bytes(),
                  .bytes = static_cast<double>(nested->codes(levels).bytes()),
                  .search = [&, how](int64_t begin, std::vector<int32_t>& found) -> absl::Status {
                    NESTREC_ASSIGN_OR_RETURN(
                        const SearchResult result,
                        nested->Search(query(begin), levels, {.k = k}, how, &last_stats));
                    for (const ScoredItem& item : result.items) found.push_back(item.item);
                    return absl::OkStatus();
                  }};
  };
  methods.push_back(nested_method("nested, plain", {.funnel = false}));
  methods.push_back(nested_method("nested, exact", {}));
  methods.push_back(nested_method(absl::StrCat("nested, recall ", flags.recall), approximate));
  struct Batched {
    std::string name;
    const NestedIndex* index;
    bool funnel;
  };
  std::vector<Batched> batched = {{"nested, plain", nested.get(), false},
                                  {"nested, exact", nested.get(), true}};
  if (view != nullptr) batched.push_back({"nested, without view", without_view.get(), true});
  for (const auto& [name, index, funnel] : batched) {
    methods.push_back({.name = name,
                       .batch = flags.batch,
                       .value_bytes = problem.view().value_bytes(),
                       .bytes = static_cast<double>(nested->codes(levels).bytes()),
                       .search = [&, index = index, funnel = funnel](
                                     int64_t begin, std::vector<int32_t>& found) -> absl::Status {
                         std::vector<NestedSearchRequest> requests;
                         for (int64_t i = 0; i < flags.batch; ++i) {
                           requests.push_back({query(begin + i), levels, {.k = k}});
                         }
                         NESTREC_ASSIGN_OR_RETURN(const auto results,
                                                  index->SearchBatch(requests, {.funnel = funnel}));
                         for (const SearchResult& result : results) {
                           for (const ScoredItem& item : result.items) found.push_back(item.item);
                         }
                         return absl::OkStatus();
                       }});
  }

  if (view != nullptr) {
    for (const int64_t batch : {int64_t{1}, flags.batch}) {
      methods.push_back(
          {.name = absl::StrCat("nested, ", view->columns(), " columns"),
           .batch = batch,
           .bytes = static_cast<double>(nested->codes(levels).bytes() + view->bytes()),
           .search = [&, batch](int64_t begin, std::vector<int32_t>& found) -> absl::Status {
             std::vector<NestedCodesRequest> requests;
             for (int64_t i = 0; i < batch; ++i) {
               requests.push_back({.codes = &nested->codes(levels),
                                   .query = query(begin + i),
                                   .options = {.k = k},
                                   .funnel = false,
                                   .reduced = view.get()});
             }
             std::vector<NestedSearchStats> stats(requests.size());
             for (const SearchResult& result : SearchCodes(requests, {}, view_scratch, stats)) {
               for (const ScoredItem& item : result.items) found.push_back(item.item);
             }
             last_stats.bytes_read = stats[0].bytes_read / batch;  // rows are read once for all
             return absl::OkStatus();
           }});
    }
  }

  // Queries of all widths from 64 columns on, in turn: in one call, and a call for each width.
  std::vector<int> widths;
  for (int each = 1; each <= levels; ++each) {
    if (problem.sizes.end(each - 1) >= 64) widths.push_back(each);
  }
  for (const bool funnel : {false, true}) {
    for (const bool together : {true, false}) {
      methods.push_back(
          {.name = absl::StrCat(funnel ? "mixed, exact" : "mixed, plain",
                                together ? ", one call" : ", by width"),
           .batch = flags.batch,
           .search = [&, funnel, together](int64_t begin, std::vector<int32_t>&) -> absl::Status {
             std::vector<std::vector<NestedSearchRequest>> calls(together ? 1 : widths.size());
             for (int64_t i = 0; i < flags.batch; ++i) {
               const size_t at = static_cast<size_t>(i) % widths.size();
               const auto width = static_cast<size_t>(problem.sizes.end(widths[at] - 1));
               calls[together ? 0 : at].push_back(
                   {query(begin + i).first(width), widths[at], {.k = k}});
             }
             for (const auto& requests : calls) {
               NESTREC_RETURN_IF_ERROR(nested->SearchBatch(requests, {.funnel = funnel}).status());
             }
             return absl::OkStatus();
           }});
      if (widths.empty()) methods.pop_back();
    }
  }
  if (flags.pipe) return ServePipe(methods, problem.queries.rows);
  // The truth is brute force by canonical score.
  std::vector<std::vector<int32_t>> best(static_cast<size_t>(problem.queries.rows));
  for (int64_t i = examples; i < problem.queries.rows; ++i) {
    NESTREC_ASSIGN_OR_RETURN(const SearchResult result,
                             nested->Search(query(i), levels, {.k = k}, {.funnel = false}));
    for (const ScoredItem& item : result.items) best[i].push_back(item.item);
    std::sort(best[i].begin(), best[i].end());
  }
  double left_scan = 0, left_codes = 0, scored = 0, groups = 0;
  int64_t funnels = 0;
  int total_steps = 0;
  // In another order every time: what a method finds in the caches is what the one before it left.
  Random random(1);
  std::vector<size_t> order(methods.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (int64_t begin = examples; begin < problem.queries.rows; ++begin) {
    for (size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[static_cast<size_t>(random.Index(static_cast<int64_t>(i)))]);
    }
    for (const size_t at : order) {
      Method& method = methods[at];
      if (!absl::StrContains(method.name, flags.only)) continue;
      if (begin + method.batch > problem.queries.rows) continue;
      if (method.batch > 1 && (begin - examples) % 4 != 0) continue;
      std::vector<int32_t> found;
      last_stats = {};
      start = Clock::now();
      NESTREC_RETURN_IF_ERROR(method.search(begin, found));
      method.seconds.push_back(Seconds(start) / static_cast<double>(method.batch));
      method.bytes_read += static_cast<double>(last_stats.bytes_read);
      for (int64_t q = 0; q < method.batch && !found.empty(); ++q) {
        const auto& expected = best[static_cast<size_t>(begin + q)];
        for (int64_t i = 0; i < k; ++i) {
          method.found += std::binary_search(expected.begin(), expected.end(),
                                             found[static_cast<size_t>(q * k + i)])
                              ? 1
                              : 0;
        }
        method.wanted += k;
      }
      if (method.name == "nested, exact" && method.batch == 1) {
        groups += last_stats.steps_read;
        total_steps = std::max(total_steps, last_stats.steps);
        left_scan += static_cast<double>(last_stats.after_scan);
        left_codes += static_cast<double>(last_stats.after_codes);
        scored += static_cast<double>(last_stats.scored);
        ++funnels;
      }
    }
  }
  const double bandwidth = MemoryBandwidth();
  if (!flags.json) {
    std::printf(
        "%lld items of dim %lld%s%s, top %lld, %lld queries, %d thread%s, %s; one core reads %.1f "
        "GB/s\n",
        static_cast<long long>(n), static_cast<long long>(dim),
        problem.explained > 0 ? absl::StrCat(" (mixture, clusters explain ",
                                             std::lround(100 * problem.explained), "%)")
                                    .c_str()
                              : "",
        flags.float16 ? " as float16" : "", static_cast<long long>(k),
        static_cast<long long>(problem.queries.rows - examples), flags.threads,
        flags.threads == 1 ? "" : "s", NestedKernelTarget(), bandwidth / 1e9);
    std::printf(
        "nested, all widths: codes made in %.2f s, written in %.2f s, read in %.2f s; ways chosen "
        "in "
        "%.2f s, settings for the recall found in %.2f s\n",
        times.made, times.written, times.read, choose_seconds, tune_seconds);
    std::printf(
        "codes and bounds %.3f x the vectors, for all widths %.3f x; share of bounds %.3f\n",
        static_cast<double>(nested->codes(levels).bytes()) / static_cast<double>(n * dim * 4),
        static_cast<double>(nested->bytes()) / static_cast<double>(n * dim * 4),
        static_cast<double>(approximate.share));
    const double searches = std::max<double>(1, static_cast<double>(funnels));
    if (view != nullptr) {
      std::printf("%lld columns: made in %.2f s, %.3f x the vectors, largest rest %.2g; chosen for",
                  static_cast<long long>(view->columns()), view_seconds,
                  static_cast<double>(view->bytes()) / static_cast<double>(n * dim * 4),
                  view->largest_rest());
      for (const int64_t batch : {int64_t{1}, flags.batch}) {
        std::printf(" batch %lld: %s", static_cast<long long>(batch),
                    nested->reduced(levels, batch, k) ? "yes" : "no");
      }
      std::printf("\n");
    } else {
      std::printf("no view in fewer columns (looked for in %.2f s)\n", view_seconds);
    }
    std::printf(
        "nested exact, means: %.1f of %d steps of codes read for all items, then %.0f items left, "
        "%.0f "
        "after all codes, %.0f scored\n\n",
        groups / searches, total_steps, left_scan / searches, left_codes / searches,
        scored / searches);
    std::printf("%-24s %6s %12s %9s %8s %12s %10s\n", "", "batch", "us a query", "of flat",
                "recall", "bytes read", "of memory");
  }
  double flat_seconds = 0;  // of the first method that ran
  for (auto method = methods.rbegin(); method != methods.rend(); ++method) {
    if (!method->seconds.empty()) flat_seconds = Median(method->seconds);
  }
  for (const Method& method : methods) {
    if (method.seconds.empty()) continue;
    const double seconds = Median(method.seconds);
    const bool compared = method.wanted > 0;
    const double recall =
        compared ? static_cast<double>(method.found) / static_cast<double>(method.wanted) : 0;
    const double read =
        method.bytes_read > 0
            ? method.bytes_read / static_cast<double>(method.seconds.size())
            : static_cast<double>(n * dim * method.value_bytes) / static_cast<double>(method.batch);
    if (flags.json) {
      Json row;
      row["method"] = method.name;
      row["items"] = n;
      row["dim"] = dim;
      row["k"] = k;
      row["threads"] = flags.threads;
      row["batch"] = method.batch;
      row["microseconds"] = 1e6 * seconds;
      row["speedup"] = flat_seconds / seconds;
      if (compared) row["recall"] = recall;
      row["bytes_held"] = method.bytes;
      row["bytes_read"] = read;
      row["share_of_bandwidth"] = read / seconds / bandwidth;
      std::printf("%s\n", row.dump().c_str());
    } else {
      std::printf("%-24s %6lld %12.1f %8.1fx %8s %12.0f %9.0f%%\n", method.name.c_str(),
                  static_cast<long long>(method.batch), 1e6 * seconds, flat_seconds / seconds,
                  compared ? absl::StrFormat("%.4f", recall).c_str() : "-", read,
                  100 * read / seconds / bandwidth);
    }
  }
  if (!flags.json) std::printf("\nresident: %.1f GB\n", ResidentBytes() / 1e9);
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  nestrec::Flags flags;
  CLI::App app("What a search costs: the nested index, FAISS's flat scan, a matrix product.");
  app.add_option("--model", flags.model, "Checkpoint")->required();
  app.add_option("--data", flags.data, "Data folder whose users' histories are the queries");
  app.add_option("--items", flags.items, "Items, sampled from a mixture; 0: the model's own");
  app.add_option("--vectors", flags.vectors, "Folder that keeps items.npy and queries.npy");
  app.add_option("--codes", flags.codes, "Folder that keeps the nested index's codes");
  app.add_option("--queries", flags.queries, "Queries that are measured")
      ->check(CLI::Range(2, 1000000));
  app.add_option("--examples", flags.examples, "Queries that the index is fitted to")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--batch", flags.batch, "Queries of a batch")->check(CLI::Range(1, 4096));
  app.add_option("--dim", flags.dim, "Width; 0: the widest");
  app.add_option("--k", flags.k, "Items to find")->check(CLI::Range(1, 100000));
  app.add_option("--threads", flags.threads, "Threads that search")->check(CLI::Range(1, 1024));
  app.add_option("--clusters", flags.clusters, "Of the mixture")->check(CLI::Range(1, 100000));
  app.add_flag("--float16", flags.float16,
               "The nested index's vectors are float16: a recall of FAISS's flat scan is then what "
               "float32 and float16 have in common");
  app.add_flag("--noise", flags.noise, "Items are noise: nothing for bounds to go by");
  app.add_option("--recall", flags.recall, "Of the approximate setting")
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--sweep", flags.sweep, "Indexes to find settings of, separated by spaces");
  app.add_option("--only", flags.only, "Only methods whose name holds this");
  app.add_flag("!--no-faiss", flags.faiss, "Leave FAISS's copy of the vectors out");
  app.add_flag("--pipe", flags.pipe, "Search as standard input says");
  app.add_flag("--json", flags.json, "One JSON object per row");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

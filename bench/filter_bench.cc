// What filters cost: from a predicate to a set, from a set to a filter, and searches of every
// selectivity, with their recall.
//
//   filter_bench [--items 200000] [--dim 64] [--index IVF512,Flat:nprobe=16] [--queries 20]
//   [--json]
//
// Vectors are drawn around 1,000 centres, queries likewise; attributes are random and have nothing
// to do with them. One core. Times are medians.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/random.h"
#include "index/attributes.h"
#include "index/exhaustive_search.h"
#include "index/faiss_index.h"
#include "index/predicate.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  int64_t items = 200'000;
  int dim = 64;
  std::vector<std::string> indexes = {"Flat", "IVF512,Flat:nprobe=16"};
  int queries = 20;
  bool json = false;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The median of some runs, in microseconds.
template <typename Run>
double Median(int runs, Run&& run) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const double start = Now();
    run(i);
    times.push_back((Now() - start) * 1e6);
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs / 2)];
}

// Vectors around centres, [count, dim], and what the index sees of them.
class Vectors {
 public:
  Vectors(int64_t count, int dim, uint64_t seed) : dim_(static_cast<size_t>(dim)) {
    Random centres(1);
    Random random(seed);
    constexpr int kCentres = 1000;
    std::vector<float> centre(static_cast<size_t>(kCentres) * static_cast<size_t>(dim));
    for (float& value : centre) value = static_cast<float>(centres.Normal());
    values_.reserve(static_cast<size_t>(count) * static_cast<size_t>(dim));
    for (int64_t i = 0; i < count; ++i) {
      const float* of = &centre[static_cast<size_t>(random.Index(kCentres) * dim)];
      for (int column = 0; column < dim; ++column) {
        values_.push_back(of[column] + 0.7f * static_cast<float>(random.Normal()));
      }
    }
  }
  LevelVectors view() const {
    return {.sizes = *NestedSizes::Create({static_cast<int>(dim_)}),
            .rows = static_cast<int64_t>(values_.size() / dim_),
            .levels = {values_}};
  }
  std::span<const float> row(int64_t i) const {
    return std::span(values_).subspan(static_cast<size_t>(i) * dim_, dim_);
  }

 private:
  size_t dim_;
  std::vector<float> values_;
};

// Fields "share_<s>", which that share of the items has, and "price", uniform in 0 to 100.
AttributeTable Attributes(int64_t items, std::span<const double> shares) {
  Random random(3);
  AttributeTable::Builder builder(items);
  for (int32_t item = 1; item <= items; ++item) {
    for (const double share : shares) {
      if (random.Uniform() < share) builder.AddFlag(item, absl::StrCat("share_", share), true);
    }
    builder.AddNumber(item, "price", std::floor(random.Uniform(0, 10'000)) / 100);
  }
  return std::move(builder).Build();
}

void Print(const Flags& flags, const Json& row) {
  if (flags.json) {
    std::printf("%s\n", row.dump().c_str());
    return;
  }
  std::string line;
  for (const auto& [key, value] : row.items()) {
    absl::StrAppend(&line, line.empty() ? "" : "  ", key, " ",
                    value.is_string() ? value.get<std::string>() : value.dump());
  }
  std::printf("%s\n", line.c_str());
}

double Rounded(double value) { return std::round(value * 10) / 10; }

int Run(const Flags& flags) {
  omp_set_num_threads(1);
  const Vectors items(flags.items + 1, flags.dim, 2);
  const Vectors queries(flags.queries, flags.dim, 4);
  constexpr double kShares[] = {0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 1.0};
  double start = Now();
  const AttributeTable table = Attributes(flags.items, kShares);
  Print(flags, {{"items", flags.items},
                {"attributes_build_s", Rounded(Now() - start)},
                {"attributes_bytes", table.bytes()}});
  for (const double upto : {1.0, 10.0, 50.0, 99.0}) {
    const Predicate predicate = Predicate::InRange("price", {.max = upto});
    const double compile = Median(9, [&](int) { Matching(predicate, table)->size(); });
    Print(flags, {{"predicate", absl::StrCat("price<=", upto)}, {"compile_us", Rounded(compile)}});
  }
  for (const std::string& spec : flags.indexes) {
    const std::vector<std::string> parts = absl::StrSplit(spec, ':');
    start = Now();
    const auto index = BuildFaissIndex(
        items.view(), 1,
        {.factory = parts[0], .parameters = parts.size() > 1 ? parts[1] : std::string()}, nullptr);
    if (!index.ok()) {
      std::fprintf(stderr, "error: %s\n", std::string(index.status().message()).c_str());
      return 1;
    }
    Print(flags, {{"index", spec}, {"build_s", Rounded(Now() - start)}});
    const double plain =
        Median(flags.queries, [&](int i) { (*index)->Search(queries.row(i), {.k = 10}).value(); });
    Print(flags, {{"index", spec}, {"share", "no filter"}, {"search_us", Rounded(plain)}});
    for (const double share : kShares) {
      const Predicate predicate = Predicate::AnyOf(absl::StrCat("share_", share), {true});
      const double compile = Median(9, [&](int) { Matching(predicate, table)->size(); });
      const ItemSet set = *Matching(predicate, table);
      const double make = Median(9, [&](int) { ItemFilter::Allowing(flags.items, set).allowed(); });
      const ItemFilter filter = ItemFilter::Allowing(flags.items, set);
      int64_t found = 0;
      int64_t wanted = 0;
      const double search = Median(flags.queries, [&](int i) {
        (*index)->Search(queries.row(i), {.k = 10, .filter = &filter}).value();
      });
      for (int i = 0; i < flags.queries; ++i) {
        const SearchOptions options = {.k = 10, .filter = &filter};
        const auto best = ExhaustiveSearch(queries.row(i), items.view(), 1, options).items;
        const auto got = (*index)->Search(queries.row(i), options)->items;
        wanted += static_cast<int64_t>(best.size());
        for (const ScoredItem& item : got) {
          found += std::count(best.begin(), best.end(), item);
        }
      }
      Print(flags,
            {{"index", spec},
             {"share", share},
             {"matching", set.size()},
             {"compile_us", Rounded(compile)},
             {"filter_us", Rounded(make)},
             {"search_us", Rounded(search)},
             {"recall",
              wanted == 0 ? 1.0 : static_cast<double>(found) / static_cast<double>(wanted)}});
    }
  }
  return 0;
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  CLI::App app("What filters cost.");
  nestrec::Flags flags;
  app.add_option("--items", flags.items)
      ->capture_default_str()
      ->check(CLI::Range(100, 100'000'000));
  app.add_option("--dim", flags.dim)->capture_default_str()->check(CLI::Range(8, 65536));
  app.add_option("--index", flags.indexes, "factory[:parameters], may be repeated")
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--queries", flags.queries)->capture_default_str()->check(CLI::Range(1, 100'000));
  app.add_flag("--json", flags.json, "One object per row");
  CLI11_PARSE(app, argc, argv);
  return nestrec::Run(flags);
}

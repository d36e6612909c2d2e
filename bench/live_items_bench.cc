// What items that came while a server runs cost its searches, and what a search by cosine costs:
// times of an exact index alone, with live rows beside it, and of the cosine of all items, by
// width.
//
//   live_items_bench [--items 12000] [--live 0,1000,10000] [--queries 30] [--json]
//
// Vectors are Gaussian, sizes 8, 16, ..., 1024. One core. Times are medians, in microseconds.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status_macros.h"
#include "bench/timing.h"
#include "index/cosine_index.h"
#include "index/faiss_index.h"
#include "index/overlaid_index.h"

namespace nestrec {
namespace {

constexpr int kDim = 1024;
constexpr int64_t kItemsAsked = 10;

struct Flags {
  int64_t items = 12'000;
  std::vector<int64_t> live = {0, 1'000, 10'000};
  int queries = 30;
  bool json = false;
};

std::vector<float> Gaussian(size_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.Normal());
  return values;
}

// The median over queries of the index's width.
absl::StatusOr<double> TimeOf(const ItemIndex& index, int queries) {
  Random random(2);
  std::vector<double> times;
  for (int i = 0; i < queries + 1; ++i) {
    const std::vector<float> query = Gaussian(static_cast<size_t>(index.dim()), random);
    NESTREC_ASSIGN_OR_RETURN(const double took, Microseconds([&] {
                               return index.Search(query, {.k = kItemsAsked}).status();
                             }));
    if (i > 0) times.push_back(took);  // the first one touches the memory
  }
  return Median(std::move(times));
}

absl::Status Run(const Flags& flags) {
  omp_set_num_threads(1);
  Random random(1);
  const NestedSizes sizes = *NestedSizes::Create({8, 16, 32, 64, 128, 256, 512, kDim});
  std::vector<std::vector<float>> levels;
  LevelVectors vectors{.sizes = sizes, .rows = flags.items + 1, .levels = {}};
  for (int level = 0; level < sizes.levels(); ++level) {
    levels.push_back(Gaussian(static_cast<size_t>(vectors.rows * sizes.width(level)), random));
  }
  for (const std::vector<float>& level : levels) vectors.levels.emplace_back(level);
  NESTREC_ASSIGN_OR_RETURN(const auto norms, ItemNorms::Create(vectors));
  // Each where it was made, as upserted ones are.
  std::vector<std::unique_ptr<std::vector<float>>> rows;
  int64_t most = 0;
  for (const int64_t live : flags.live) most = std::max(most, live);
  for (int64_t i = 0; i < most; ++i) {
    rows.push_back(std::make_unique<std::vector<float>>(Gaussian(kDim, random)));
  }
  nlohmann::ordered_json report = nlohmann::ordered_json::array();
  for (int depth = 1; depth <= sizes.levels(); ++depth) {
    nlohmann::ordered_json line;
    line["dim"] = sizes.end(depth - 1);
    NESTREC_ASSIGN_OR_RETURN(const auto flat,
                             BuildFaissIndex(vectors, depth, {.factory = "Flat"}, nullptr));
    NESTREC_ASSIGN_OR_RETURN(const double alone, TimeOf(*flat, flags.queries));
    line["flat_us"] = alone;
    for (const int64_t live : flags.live) {
      std::vector<ItemOverlay::Row> beside;
      for (int64_t i = 0; i < live; ++i) {
        beside.push_back({.item = static_cast<int32_t>(flags.items + 1 + i),
                          .vector = rows[static_cast<size_t>(i)]->data()});
      }
      const ItemOverlay overlay(flags.items, flags.items + live, std::move(beside), {});
      const OverlaidIndex index(flat.get(), &overlay, sizes, depth, Similarity::kProduct);
      NESTREC_ASSIGN_OR_RETURN(const double together, TimeOf(index, flags.queries));
      line["with_" + std::to_string(live) + "_live_us"] = together;
    }
    NESTREC_ASSIGN_OR_RETURN(const double cosine,
                             TimeOf(CosineIndex(vectors, depth, norms), flags.queries));
    line["cosine_us"] = cosine;
    if (!flags.json) std::printf("%s\n", line.dump().c_str());
    report.push_back(std::move(line));
  }
  if (flags.json) std::printf("%s\n", report.dump(2).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  CLI::App app("What live items and searches by cosine cost");
  nestrec::Flags flags;
  app.add_option("--items", flags.items, "Items of the index")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_option("--live", flags.live, "Rows beside it, separated by commas")
      ->delimiter(',')
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--queries", flags.queries, "Searches of each kind")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_flag("--json", flags.json, "Print one JSON value");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

// What a width costs: bytes, encoding and search of every size of a checkpoint, as ratios to the
// widest.
//
//   width_bench --model m.safetensors [--history 50] [--rounds 200] [--json]
//
// One core. Sizes take turns in every round, so that the machine's noise falls on all alike; each
// figure is the median over the rounds, and the ratios are of medians of one run.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "bench/timing.h"
#include "index/faiss_index.h"
#include "model/checkpoint.h"
#include "model/encoder.h"

namespace nestrec {
namespace {

struct Flags {
  std::string model;
  int history = 50;
  int rounds = 200;
  int k = 10;
  bool json = false;
};

struct Row {
  int dim;
  uint64_t model_bytes;
  int64_t index_bytes;
  std::vector<double> encode_us, search_us;
  double recall = 0;  // Recall@10 on test as stored
};

void PrintTable(const std::vector<Row>& rows, const Flags& flags) {
  const Row& widest = rows.back();
  const double widest_total = Median(widest.encode_us) + Median(widest.search_us);
  std::printf("history of %d items, k %d, one core, median of %d rounds; shares of the widest\n",
              flags.history, flags.k, flags.rounds);
  std::printf("%6s  %9s  %9s  %11s  %7s  %11s  %11s  %7s\n", "dim", "R@10", "share", "model bytes",
              "share", "encode us", "search us", "share");
  for (const Row& row : rows) {
    const double encode = Median(row.encode_us);
    const double search = Median(row.search_us);
    std::printf(
        "%6d  %9.4f  %8.0f%%  %11llu  %6.1f%%  %11.1f  %11.1f  %6.1f%%\n", row.dim, row.recall,
        widest.recall > 0 ? 100 * row.recall / widest.recall : 0.0,
        static_cast<unsigned long long>(row.model_bytes),
        100.0 * static_cast<double>(row.model_bytes) / static_cast<double>(widest.model_bytes),
        encode, search, 100 * (encode + search) / widest_total);
  }
}

void PrintJson(const std::vector<Row>& rows) {
  const double widest_total = Median(rows.back().encode_us) + Median(rows.back().search_us);
  for (const Row& row : rows) {
    const double encode = Median(row.encode_us);
    const double search = Median(row.search_us);
    nlohmann::ordered_json json;
    json["dim"] = row.dim;
    json["recall@10"] = row.recall;
    json["model_bytes"] = row.model_bytes;
    json["index_bytes"] = row.index_bytes;
    json["encode_us"] = encode;
    json["search_us"] = search;
    json["share_of_widest"] = (encode + search) / widest_total;
    std::printf("%s\n", json.dump().c_str());
  }
}

absl::Status Run(const Flags& flags) {
  omp_set_num_threads(1);
  auto checkpoint = Checkpoint::Open(flags.model, {});
  if (!checkpoint.ok()) return checkpoint.status();
  auto encoder = Encoder::Create((*checkpoint)->view(), *checkpoint);
  if (!encoder.ok()) return encoder.status();
  const ModelView& view = (*checkpoint)->view();
  const LevelVectors vectors{view.sizes, view.item_rows, view.items};
  std::vector<Row> rows;
  std::vector<std::unique_ptr<const ItemIndex>> indexes;
  for (int level = 0; level < view.sizes.levels(); ++level) {
    auto index = BuildFaissIndex(vectors, level + 1, {}, *checkpoint);
    if (!index.ok()) return index.status();
    const auto& test = (*checkpoint)->info().test;
    rows.push_back(
        {.dim = view.sizes.end(level),
         .model_bytes = (*checkpoint)->LevelBytes(level + 1),
         .index_bytes = (*index)->bytes(),
         .encode_us = {},
         .search_us = {},
         .recall = test.empty() ? 0 : test[static_cast<size_t>(level)].metrics.recall[1]});
    indexes.push_back(*std::move(index));
  }
  Random random(1);
  for (int round = 0; round < flags.rounds; ++round) {
    std::vector<int32_t> history;
    for (int i = 0; i < flags.history; ++i) {
      history.push_back(static_cast<int32_t>(1 + random.Index(view.item_rows - 1)));
    }
    const std::vector<History> histories = {history};
    for (int level = 0; level < view.sizes.levels(); ++level) {
      Row& row = rows[static_cast<size_t>(level)];
      std::vector<float> z(static_cast<size_t>(row.dim));
      const auto encode = Microseconds([&] { return (*encoder)->Encode(histories, level + 1, z); });
      if (!encode.ok()) return encode.status();
      const auto search = Microseconds(
          [&] { return indexes[static_cast<size_t>(level)]->Search(z, {.k = flags.k}).status(); });
      if (!search.ok()) return search.status();
      row.encode_us.push_back(*encode);
      row.search_us.push_back(*search);
    }
  }
  if (flags.json) {
    PrintJson(rows);
  } else {
    PrintTable(rows, flags);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  nestrec::Flags flags;
  CLI::App app("What every width of a checkpoint costs, as shares of the widest.");
  app.add_option("--model", flags.model, "Checkpoint")->required();
  app.add_option("--history", flags.history, "Items of the history")->check(CLI::Range(0, 100000));
  app.add_option("--rounds", flags.rounds, "Measurements per size")->check(CLI::Range(1, 1000000));
  app.add_option("--k", flags.k, "Items to find")->check(CLI::Range(1, 100000));
  app.add_flag("--json", flags.json, "One JSON object per size");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

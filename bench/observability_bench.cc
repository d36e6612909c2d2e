// What watching a request costs it: the same requests to a server that counts nothing and to one
// with metrics, request ids, an eye on slow requests and a scraper, in turn, in one process.
//
//   build/release/bench/observability_bench --calls 20000
//
// Prints the median of the calls of each and their ratio.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/client.h"
#include "server/metrics.h"
#include "server/server.h"
#include "server/snapshot.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

double MedianMicroseconds(std::vector<double>& times) {
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

int Run(int calls, int dim, int items) {
  const std::string path = absl::StrCat("/tmp/observability_bench.", getpid(), ".safetensors");
  if (const absl::Status written =
          RandomModel({.sizes = {8, 64, 256}, .items = items, .max_len = 50}).Write(path);
      !written.ok()) {
    std::fprintf(stderr, "error: %s\n", written.ToString().c_str());
    return 1;
  }
  const auto snapshot = Snapshot::Load({.path = path}, Log([](absl::string_view) {}));
  unlink(path.c_str());
  Metrics metrics;
  const auto plain = Server::Start({.listen = "127.0.0.1:0"}, *snapshot);
  ServerOptions watched_options{.listen = "127.0.0.1:0"};
  const Log log([](absl::string_view) {});
  watched_options.observe = {.metrics = &metrics, .log = &log, .slow_request = absl::Seconds(10)};
  const auto watched = Server::Start(watched_options, *snapshot);
  if (!plain.ok() || !watched.ok()) {
    std::fprintf(stderr, "error: %s %s\n", plain.status().ToString().c_str(),
                 watched.status().ToString().c_str());
    return 1;
  }
  v1::RecommendRequest request;
  for (int item = 10; item < 60; ++item) request.add_history_item_ids(RandomModelItemId(item));
  request.set_dim(dim);
  request.set_k(10);
  std::vector<std::unique_ptr<RecommendClient>> clients;
  for (const auto* server : {&plain, &watched}) {
    clients.push_back(std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = (**server)->address()}));
  }
  std::vector<std::vector<double>> times(2);
  for (int call = 0; call < 2 * calls; ++call) {
    // In turn, and in either order.
    const auto which = static_cast<size_t>((call + call / 2) % 2);
    if (call % 1000 == 0) metrics.Text();
    const auto begun = std::chrono::steady_clock::now();
    const auto answer = clients[which]->Recommend(request);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begun;
    if (!answer.ok()) {
      std::fprintf(stderr, "error: %s\n", answer.status().ToString().c_str());
      return 1;
    }
    if (call >= calls / 5) times[which].push_back(took.count());
  }
  const double without = MedianMicroseconds(times[0]);
  const double with = MedianMicroseconds(times[1]);
  const auto begun = std::chrono::steady_clock::now();
  const std::string text = metrics.Text();
  const std::chrono::duration<double, std::milli> scrape = std::chrono::steady_clock::now() - begun;
  std::printf(
      "dim %d, %d items, %d calls each: median %.1f us without, %.1f us with, ratio %.3f; "
      "a scrape of %zu bytes takes %.2f ms\n",
      dim, items, calls, without, with, with / without, text.size(), scrape.count());
  return 0;
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  CLI::App app("What watching a request costs it");
  int calls = 20'000;
  int dim = 64;
  int items = 12'000;
  app.add_option("--calls", calls, "Calls of each server")->check(CLI::Range(10, 10'000'000));
  app.add_option("--dim", dim, "8, 64 or 256");
  app.add_option("--items", items, "Items of the catalogue")->check(CLI::Range(100, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  return nestrec::Run(calls, dim, items);
}

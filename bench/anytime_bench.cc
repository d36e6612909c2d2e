// What it costs to decide late: a request that widens level by level against one that was wide from
// the start, and a batch of mixed widths against batches of one width each.
//
//   anytime_bench --model m.safetensors [--history 50] [--rows 4] [--rounds 100] [--json]
//
// One core. What is compared takes turns in every round, so that the machine's noise falls on all
// alike; figures are medians over the rounds, ratios are medians of the rounds' ratios.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "bench/timing.h"
#include "model/checkpoint.h"
#include "model/encoder.h"

namespace nestrec {
namespace {

using SteadyTime = std::chrono::steady_clock;

struct Flags {
  std::string model;
  int history = 50;
  int rows = 4;  // of each size
  int rounds = 100;
  bool json = false;
};

// Two ways of the same work, round by round.
struct Comparison {
  std::vector<double> apart_us, together_us;

  double Ratio() const {
    std::vector<double> ratios;
    for (size_t i = 0; i < apart_us.size(); ++i) ratios.push_back(together_us[i] / apart_us[i]);
    return Median(std::move(ratios));
  }
};

class Bench {
 public:
  Bench(const Flags& flags, const Encoder& encoder)
      : flags_(flags), encoder_(encoder), levels_(encoder.sizes().levels()) {}

  absl::Status Run() {
    for (int round = 0; round < flags_.rounds; ++round) {
      NESTREC_RETURN_IF_ERROR(Widen());
      NESTREC_RETURN_IF_ERROR(Mix());
    }
    return absl::OkStatus();
  }

  void Print() const {
    const auto line = [&](const char* what, const char* apart, const char* together,
                          const Comparison& comparison, double limit) {
      if (flags_.json) {
        nlohmann::ordered_json json;
        json["what"] = what;
        json["history"] = flags_.history;
        json[absl::StrCat(apart, "_us")] = Median(comparison.apart_us);
        json[absl::StrCat(together, "_us")] = Median(comparison.together_us);
        json["ratio"] = comparison.Ratio();
        std::printf("%s\n", json.dump().c_str());
      } else {
        std::printf("%-8s  %12s %9.1f us  %12s %9.1f us  ratio %.3f (to stay below %.2f)\n", what,
                    apart, Median(comparison.apart_us), together, Median(comparison.together_us),
                    comparison.Ratio(), limit);
      }
    };
    line("widen", "wide", "widened", widen_, 1.05);
    line("mix", "by_size", "mixed", mix_, 1.10);
  }

 private:
  std::vector<int32_t> NewHistory() {
    std::vector<int32_t> history;
    for (int i = 0; i < flags_.history; ++i) {
      history.push_back(static_cast<int32_t>(1 + random_.Index(encoder_.view().item_rows - 1)));
    }
    return history;
  }
  size_t DimOf(int levels) const { return static_cast<size_t>(encoder_.sizes().end(levels - 1)); }

  // Adds the time of encoding `rows`, whose z have room in `z`.
  absl::Status Time(std::vector<EncodeRow> rows, double& microseconds) {
    size_t begin = 0;
    for (EncodeRow& row : rows) {
      row.z = std::span(z_).subspan(begin, DimOf(row.most()));
      begin += row.z.size();
    }
    // The clock is read as a server does that asks whether there is time for the next level.
    const SteadyTime::time_point deadline = SteadyTime::now() + std::chrono::hours(1);
    const auto go_on = [&](size_t, int) { return SteadyTime::now() < deadline; };
    const SteadyTime::time_point start = SteadyTime::now();
    NESTREC_RETURN_IF_ERROR(encoder_.Encode(rows, go_on));
    microseconds += std::chrono::duration<double, std::micro>(SteadyTime::now() - start).count();
    return absl::OkStatus();
  }

  absl::Status Widen() {
    z_.resize(DimOf(levels_));
    const std::vector<int32_t> history = NewHistory();
    double wide = 0;
    double widened = 0;
    NESTREC_RETURN_IF_ERROR(Time({{.history = history, .levels = levels_}}, wide));
    NESTREC_RETURN_IF_ERROR(
        Time({{.history = history, .levels = 1, .most_levels = levels_}}, widened));
    widen_.apart_us.push_back(wide);
    widen_.together_us.push_back(widened);
    return absl::OkStatus();
  }

  absl::Status Mix() {
    z_.resize(static_cast<size_t>(flags_.rows * levels_) * DimOf(levels_));
    std::vector<std::vector<int32_t>> histories;
    std::vector<EncodeRow> mixed;
    for (int i = 0; i < flags_.rows * levels_; ++i) histories.push_back(NewHistory());
    double by_size = 0;
    for (int levels = 1; levels <= levels_; ++levels) {
      std::vector<EncodeRow> rows;
      for (int i = 0; i < flags_.rows; ++i) {
        const auto which = static_cast<size_t>((levels - 1) * flags_.rows + i);
        rows.push_back({.history = histories[which], .levels = levels});
      }
      mixed.insert(mixed.end(), rows.begin(), rows.end());
      NESTREC_RETURN_IF_ERROR(Time(std::move(rows), by_size));
    }
    double together = 0;
    NESTREC_RETURN_IF_ERROR(Time(std::move(mixed), together));
    mix_.apart_us.push_back(by_size);
    mix_.together_us.push_back(together);
    return absl::OkStatus();
  }

  const Flags& flags_;
  const Encoder& encoder_;
  const int levels_;
  Random random_{1};
  std::vector<float> z_;
  Comparison widen_, mix_;
};

absl::Status Run(const Flags& flags) {
  omp_set_num_threads(1);
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(flags.model, {}));
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  Bench bench(flags, *encoder);
  NESTREC_RETURN_IF_ERROR(bench.Run());
  bench.Print();
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  nestrec::Flags flags;
  CLI::App app("What widening and mixing widths cost beside doing each width by itself.");
  app.add_option("--model", flags.model, "Checkpoint")->required();
  app.add_option("--history", flags.history, "Items of a history")->check(CLI::Range(0, 100000));
  app.add_option("--rows", flags.rows, "Rows of each size in a mixed batch")
      ->check(CLI::Range(1, 1000));
  app.add_option("--rounds", flags.rounds, "Measurements")->check(CLI::Range(1, 1000000));
  app.add_flag("--json", flags.json, "One JSON object per comparison");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

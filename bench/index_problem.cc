#include "bench/index_problem.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/npy.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "bench/item_mixture.h"
#include "index/nested_store.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"

namespace nestrec {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

absl::StatusOr<Matrix> EncodeQueries(const Checkpoint& checkpoint,
                                     std::shared_ptr<const Checkpoint> owner, int levels,
                                     const ProblemOptions& options) {
  NESTREC_ASSIGN_OR_RETURN(auto encoder, Encoder::Create(checkpoint.view(), std::move(owner)));
  std::shared_ptr<const Dataset> data;
  if (!options.data.empty()) {
    NESTREC_ASSIGN_OR_RETURN(
        data, Dataset::Load(options.data, {.modalities = {}, .load_features = false}));
    if (data->items() != checkpoint.info().items) {
      return absl::InvalidArgumentError(absl::StrCat(
          options.data, " has ", data->items(), " items, the model ", checkpoint.info().items));
    }
  }
  Random random(1);
  std::vector<std::vector<int32_t>> histories;
  for (int64_t i = 0; i < options.examples + options.queries; ++i) {
    std::vector<int32_t>& history = histories.emplace_back();
    if (data != nullptr) {
      const auto sequence = data->sequence(random.Index(data->users()));
      history.assign(sequence.begin(), sequence.end());
    } else {
      for (int item = 0; item < 8; ++item) {
        history.push_back(static_cast<int32_t>(1 + random.Index(checkpoint.info().items)));
      }
    }
  }
  std::vector<History> views(histories.begin(), histories.end());
  Matrix queries{.rows = options.examples + options.queries,
                 .columns = checkpoint.sizes().end(levels - 1),
                 .values = {}};
  queries.values.resize(static_cast<size_t>(queries.rows * queries.columns));
  NESTREC_RETURN_IF_ERROR(encoder->Encode(views, levels, queries.values));
  return queries;
}

// Maps the matrix that WriteNpy wrote: pages that are not in use need no memory.
absl::Status MapRows(const std::string& path, Problem& problem) {
  NESTREC_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  constexpr size_t kLengthAt = 8;
  constexpr size_t kHeaderAt = 10;
  const auto* const bytes = reinterpret_cast<const unsigned char*>(file->data());
  const size_t header =
      file->size() < kHeaderAt ? 0 : bytes[kLengthAt] + 256 * bytes[kLengthAt + 1];
  const size_t wanted =
      kHeaderAt + header + static_cast<size_t>(problem.items * problem.dim) * sizeof(float);
  if (file->size() != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is ", file->size(), " bytes long; ",
                                                   problem.items, " vectors of ", problem.dim,
                                                   " take ", wanted, ": remove it"));
  }
  problem.rows = {reinterpret_cast<const float*>(bytes + kHeaderAt + header),
                  static_cast<size_t>(problem.items * problem.dim)};
  problem.owner = std::move(file);
  return absl::OkStatus();
}

Matrix MakeItems(const ModelView& view, const ProblemOptions& options, Problem& problem) {
  const int64_t dim = problem.dim;
  const int64_t own = view.item_rows - 1;
  Matrix items{.rows = own, .columns = dim, .values = {}};
  items.values.resize(static_cast<size_t>(own * dim));
  for (int level = 0; level < view.sizes.levels(); ++level) {
    const int64_t width = view.sizes.width(level);
    for (int64_t row = 0; row < own; ++row) {
      std::copy_n(view.items[static_cast<size_t>(level)].begin() + (row + 1) * width, width,
                  items.values.begin() + row * dim + view.sizes.begin(level));
    }
  }
  if (options.noise) {
    Random random(3);
    items.rows = problem.items;
    items.values.resize(static_cast<size_t>(problem.items * dim));
    for (float& value : items.values) value = static_cast<float>(random.Normal());
    return items;
  }
  if (problem.items == own) return items;
  const ItemMixture mixture(items.values, dim, std::min<int64_t>(options.clusters, own),
                            /*seed=*/1);
  problem.explained = mixture.explained();
  items.rows = problem.items;
  items.values = std::vector<float>(static_cast<size_t>(problem.items * dim));
  constexpr int64_t kBlock = 8192;
#pragma omp parallel for schedule(dynamic)
  for (int64_t begin = 0; begin < problem.items; begin += kBlock) {
    const int64_t count = std::min(kBlock, problem.items - begin);
    mixture.Sample(
        2, static_cast<uint64_t>(begin), count,
        std::span(items.values)
            .subspan(static_cast<size_t>(begin * dim), static_cast<size_t>(count * dim)));
  }
  return items;
}

}  // namespace

absl::StatusOr<Problem> MakeProblem(const ProblemOptions& options) {
  NESTREC_ASSIGN_OR_RETURN(auto checkpoint,
                           Checkpoint::Open(options.model, {.max_dim = options.dim}));
  const ModelView& view = checkpoint->view();
  Problem problem{.sizes = view.sizes,
                  .items = options.items > 0 ? options.items : view.item_rows - 1,
                  .dim = view.sizes.max_dim(),
                  .queries = {},
                  .levels = {}};
  NESTREC_ASSIGN_OR_RETURN(problem.queries,
                           EncodeQueries(*checkpoint, checkpoint, view.sizes.levels(), options));
  const std::string items_path = options.vectors + "/items.npy";
  if (options.vectors.empty() || !FileExists(items_path)) {
    Matrix items = MakeItems(view, options, problem);
    if (options.vectors.empty()) {
      const auto kept = std::make_shared<const Matrix>(std::move(items));
      problem.rows = kept->values;
      problem.owner = kept;
    } else {
      NESTREC_RETURN_IF_ERROR(MakeDirectories(options.vectors));
      NESTREC_RETURN_IF_ERROR(WriteNpy(items_path, items));
    }
  }
  if (!options.vectors.empty()) {
    NESTREC_RETURN_IF_ERROR(WriteNpy(options.vectors + "/queries.npy", problem.queries));
    NESTREC_RETURN_IF_ERROR(MapRows(items_path, problem));
  }
  for (int level = 0; level < problem.sizes.levels(); ++level) {
    const int64_t width = problem.sizes.width(level);
    std::vector<float>& values =
        problem.levels.emplace_back(static_cast<size_t>((problem.items + 1) * width));
    for (int64_t row = 0; row < problem.items; ++row) {
      std::copy_n(problem.rows.begin() + row * problem.dim + problem.sizes.begin(level), width,
                  values.begin() + (row + 1) * width);
    }
  }
  if (options.float16) {
    NESTREC_ASSIGN_OR_RETURN(HalfLevels halves, RoundLevels(problem.view()));
    problem.halves = std::move(halves);
    problem.levels = {};
  }
  return problem;
}

absl::StatusOr<std::vector<std::unique_ptr<const NestedCodes>>> MakeCodes(
    const Problem& problem, std::span<const float> examples, const std::string& folder,
    CodesTimes& times) {
  if (!folder.empty()) NESTREC_RETURN_IF_ERROR(MakeDirectories(folder));
  std::vector<std::unique_ptr<const NestedCodes>> widths;
  for (int levels = 1; levels <= problem.sizes.levels(); ++levels) {
    const LevelVectors vectors = problem.view().Prefix(levels);
    const bool kept =
        !folder.empty() && NestedCodes::Worthwhile(vectors.sizes.max_dim(), vectors.items());
    const std::string path = absl::StrCat(folder, "/dim", vectors.sizes.max_dim(), ".index");
    const std::string key = nested_store::KeyOf(vectors, "index_bench");
    auto start = Clock::now();
    if (kept) {
      absl::StatusOr<std::unique_ptr<const NestedCodes>> codes =
          nested_store::Read(path, key, vectors);
      if (codes.ok()) {
        times.read += Seconds(start);
        widths.push_back(*std::move(codes));
        continue;
      }
      if (!absl::IsNotFound(codes.status())) return codes.status();
    }
    const size_t width = static_cast<size_t>(vectors.sizes.max_dim());
    std::vector<float> queries;
    for (size_t i = 0; i < examples.size(); i += static_cast<size_t>(problem.dim)) {
      const auto query = examples.subspan(i, width);
      queries.insert(queries.end(), query.begin(), query.end());
    }
    start = Clock::now();
    NESTREC_ASSIGN_OR_RETURN(auto codes, NestedCodes::Create(vectors, {.queries = queries}));
    times.made += Seconds(start);
    start = Clock::now();
    if (kept) NESTREC_RETURN_IF_ERROR(nested_store::Write(*codes, path, key));
    times.written += Seconds(start);
    widths.push_back(std::move(codes));
  }
  return widths;
}

}  // namespace nestrec

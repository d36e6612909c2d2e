#include "index/nested_store.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "index/score.h"

namespace nestrec {
namespace {

constexpr int64_t kRowsAtOnce = 512;  // that are encoded together
constexpr float kMostBound = 127;     // bound rows are byte rows

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Item row's vector divided by its norm (or by `scale`, the norm rounded up), into [D]. Returns the
// norm; kInvalidArgument names a value that is not finite.
absl::StatusOr<double> Direction(const LevelVectors& vectors, int64_t row, bool rounded_up,
                                 double* direction) {
  double square = 0;
  for (int level = 0; level < vectors.sizes.levels(); ++level) {
    const auto values = vectors.row(level, row + 1);
    const int begin = vectors.sizes.begin(level);
    for (size_t c = 0; c < values.size(); ++c) {
      if (!std::isfinite(values[c])) {
        return absl::InvalidArgumentError(absl::StrCat("item ", row + 1, " has ", values[c],
                                                       " in column ", begin + static_cast<int>(c),
                                                       "; vectors must be finite"));
      }
      const double value = values[c];
      direction[begin + static_cast<int>(c)] = value;
      square += value * value;
    }
  }
  double norm = std::sqrt(square);
  if (rounded_up) norm = static_cast<double>(static_cast<float>(norm * (1 + 1e-6)));
  const double factor = norm > 0 && std::isfinite(norm) ? 1 / norm : 0;
  for (int c = 0; c < vectors.sizes.max_dim(); ++c) direction[c] *= factor;
  return norm;
}

// A sum of squares' root, with the rounding of the float sums that it came from.
float RootUp(float square) { return std::sqrt(square) * (1 + 1e-3f); }

}  // namespace

// Per item and group, before they are rounded to bound rows.
struct NestedStore::Measures {
  explicit Measures(int64_t items, int64_t groups)
      : groups(groups),
        norms(static_cast<size_t>(items * groups)),
        errors4(norms.size()),
        errors8(norms.size()),
        largest_value4(static_cast<size_t>(groups)) {}
  int64_t groups;
  std::vector<float> norms, errors4, errors8;      // [items, groups]
  std::vector<std::atomic<float>> largest_value4;  // [groups], squares
};

absl::StatusOr<std::shared_ptr<const NestedStore>> NestedStore::Create(
    const LevelVectors& vectors, const Options& options, std::shared_ptr<const void> owner) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  const size_t dim = static_cast<size_t>(vectors.sizes.max_dim());
  if (options.queries.size() % dim != 0) {
    return absl::InvalidArgumentError(absl::StrCat("examples of queries hold ",
                                                   options.queries.size(),
                                                   " values, which is no multiple of dim ", dim));
  }
  for (const float value : options.queries) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat("examples of queries hold ", value));
    }
  }
  return Guard("nested store", [&]() -> absl::StatusOr<std::shared_ptr<const NestedStore>> {
    std::shared_ptr<NestedStore> store(new NestedStore(vectors, std::move(owner)));
    NESTREC_RETURN_IF_ERROR(store->Build(options));
    return std::shared_ptr<const NestedStore>(std::move(store));
  });
}

absl::Status NestedStore::Build(const Options& options) {
  NESTREC_RETURN_IF_ERROR(Fit(options));
  const int64_t n = items();
  scales_ = AlignedArray<float>(static_cast<size_t>(n));
  for (Group& group : groups_) {
    group.high = AlignedArray<uint8_t>(static_cast<size_t>(n * group.row_bytes));
    group.low = AlignedArray<uint8_t>(static_cast<size_t>(n * group.row_bytes));
  }
  Measures measures(n, static_cast<int64_t>(groups_.size()));
  const int64_t blocks = (n + kRowsAtOnce - 1) / kRowsAtOnce;
  std::vector<absl::Status> statuses(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(dynamic)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kRowsAtOnce;
    statuses[block] = Guard("nested store", [&] {
      return EncodeRows(begin, std::min(kRowsAtOnce, n - begin), measures);
    });
  }
  for (const absl::Status& status : statuses) NESTREC_RETURN_IF_ERROR(status);
  SetBounds(measures);
  return absl::OkStatus();
}

absl::Status NestedStore::Fit(const Options& options) {
  const int64_t dim = sizes().max_dim();
  const int64_t n = items();
  const int64_t rows = std::min(n, std::max<int64_t>(1, options.fit_rows));
  std::vector<double> directions(static_cast<size_t>(rows * dim));
  for (int64_t i = 0; i < rows; ++i) {
    NESTREC_RETURN_IF_ERROR(
        Direction(vectors_, i * n / rows, /*rounded_up=*/false, directions.data() + i * dim)
            .status());
  }
  NESTREC_ASSIGN_OR_RETURN(transform_, FitNestedTransform(sizes(), directions, options.queries));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < dim; ++c) directions[i * dim + c] -= transform_.mean[c];
  }
  std::vector<double> coordinates(directions.size());
  transform_.Encode(directions, coordinates);
  std::vector<double> deviations(static_cast<size_t>(dim));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < dim; ++c) {
      deviations[c] += coordinates[i * dim + c] * coordinates[i * dim + c];
    }
  }
  for (double& deviation : deviations) {
    deviation = std::sqrt(deviation / static_cast<double>(rows));
  }
  MakeGroups(deviations);
  return absl::OkStatus();
}

void NestedStore::MakeGroups(std::span<const double> deviations) {
  const auto add = [&](int begin, int end, int level) {
    Group group;
    group.begin = begin;
    group.end = end;
    group.level = level;
    group.row_bytes = RoundUp((end - begin + 1) / 2, kRowAlignment);
    for (int c = begin; c < end; ++c) {
      const double step = kStep * deviations[static_cast<size_t>(c)];
      group.steps.push_back(step > 1e-30 ? static_cast<float>(step) : 0.0f);
    }
    groups_.push_back(std::move(group));
  };
  int level = 0;
  while (level + 1 < sizes().levels() && sizes().end(level + 1) <= kNarrow) ++level;
  if (sizes().end(level) <= kNarrow) {
    add(0, sizes().end(level), level);
    ++level;
  }
  for (; level < sizes().levels(); ++level) {
    const int begin = sizes().begin(level);
    const int end = sizes().end(level);
    if (end - begin < kSplit) {
      add(begin, end, level);
    } else {
      const int middle = begin + static_cast<int>(RoundUp((end - begin) / 2, 2 * kRowAlignment));
      add(begin, middle, level);
      add(middle, end, level);
    }
  }
}

absl::Status NestedStore::EncodeRows(int64_t begin, int64_t count, Measures& measures) {
  const int64_t dim = sizes().max_dim();
  std::vector<double> directions(static_cast<size_t>(count * dim));
  for (int64_t i = 0; i < count; ++i) {
    double* const direction = directions.data() + i * dim;
    NESTREC_ASSIGN_OR_RETURN(const double norm,
                             Direction(vectors_, begin + i, /*rounded_up=*/true, direction));
    // Bounds of a norm this large may leave float's range.
    constexpr float kLargest = std::numeric_limits<float>::max() / 65536;
    scales_[static_cast<size_t>(begin + i)] = norm < static_cast<double>(kLargest)
                                                  ? static_cast<float>(norm)
                                                  : std::numeric_limits<float>::quiet_NaN();
    for (int64_t c = 0; c < dim; ++c) direction[c] -= transform_.mean[c];
  }
  std::vector<double> coordinates(directions.size());
  transform_.Encode(directions, coordinates);
  std::vector<float> rounded(static_cast<size_t>(dim));
  std::vector<float> inverse;
  for (size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    const int64_t width = group.end - group.begin;
    inverse.assign(static_cast<size_t>(width), 0.0f);
    for (int64_t c = 0; c < width; ++c) {
      if (group.steps[c] > 0) inverse[c] = 1 / group.steps[c];
    }
    float largest4 = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double* const from = coordinates.data() + i * dim + group.begin;
      std::copy(from, from + width, rounded.begin());
      const int64_t row = begin + i;
      const EncodedGroup encoded = EncodeGroup(
          rounded.data(), inverse.data(), group.steps.data(), width, group.row_bytes,
          group.high.data() + row * group.row_bytes, group.low.data() + row * group.row_bytes);
      const size_t at = static_cast<size_t>(row * measures.groups) + g;
      const float norm = RootUp(encoded.square);
      measures.norms[at] = norm;
      // Coordinates were rounded to float.
      measures.errors4[at] = RootUp(encoded.error4) + 1e-6f * norm;
      measures.errors8[at] = RootUp(encoded.error8) + 1e-6f * norm;
      largest4 = std::max(largest4, encoded.value4);
    }
    const auto raise = [](std::atomic<float>& largest, float value) {
      float before = largest.load(std::memory_order_relaxed);  // only a maximum: order is free
      while (before < value && !largest.compare_exchange_weak(before, value)) {
      }
    };
    raise(measures.largest_value4[g], largest4);
  }
  return absl::OkStatus();
}

void NestedStore::SetBounds(const Measures& measures) {
  const int64_t n = items();
  const int64_t groups = measures.groups;
  bound_bytes_ = 2 * RoundUp(groups, kRowAlignment / 2);
  error8_bytes_ = RoundUp(groups, kRowAlignment);
  bounds4_ = AlignedArray<uint8_t>(static_cast<size_t>(n * bound_bytes_));
  bounds8_ = AlignedArray<uint8_t>(static_cast<size_t>(n * error8_bytes_));
  const auto set = [&](const std::vector<float>& values, size_t g, uint8_t* first,
                       int64_t row_bytes) {
    float largest = 0;
    for (int64_t row = 0; row < n; ++row) {
      largest = std::max(largest, values[static_cast<size_t>(row * groups) + g]);
    }
    // A little more than the largest / 127, so that rounding never asks for 128.
    const float unit = largest / kMostBound * (1 + 1e-5f) + std::numeric_limits<float>::min();
    for (int64_t row = 0; row < n; ++row) {
      const float units = values[static_cast<size_t>(row * groups) + g] / unit * (1 + 1e-6f);
      first[row * row_bytes] = static_cast<uint8_t>(std::min(kMostBound, std::ceil(units)));
    }
    return unit;
  };
  for (size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    group.norm_unit = set(measures.norms, g, bounds4_.data() + g, bound_bytes_);
    group.error4_unit =
        set(measures.errors4, g, bounds4_.data() + bound_bytes_ / 2 + g, bound_bytes_);
    group.error8_unit = set(measures.errors8, g, bounds8_.data() + g, error8_bytes_);
    group.value4_norm = RootUp(measures.largest_value4[g].load());
  }
}

int NestedStore::groups_of(int levels) const {
  int count = 0;
  while (count < static_cast<int>(groups_.size()) &&
         groups_[static_cast<size_t>(count)].begin < sizes().end(levels - 1)) {
    ++count;
  }
  return count;
}

float NestedStore::Score(std::span<const float> query, int levels, int64_t row) const {
  double sum = 0;
  for (int level = 0; level < levels; ++level) {
    const auto values = vectors_.row(level, row + 1);
    AddCanonicalDots(query.data() + sizes().begin(level), values.data(), sizes().width(level), 1,
                     &sum);
  }
  return ScoreFromSum(sum);
}

void NestedStore::Scores(std::span<const float> query, int levels, int64_t begin, int64_t count,
                         double* sums, float* scores) const {
  std::fill_n(sums, count, 0.0);
  for (int level = 0; level < levels; ++level) {
    AddCanonicalDots(query.data() + sizes().begin(level), vectors_.row(level, begin + 1).data(),
                     sizes().width(level), count, sums);
  }
  for (int64_t i = 0; i < count; ++i) scores[i] = ScoreFromSum(sums[i]);
}

int64_t NestedStore::bytes() const {
  size_t bytes = scales_.bytes() + bounds4_.bytes() + bounds8_.bytes();
  for (const Group& group : groups_) bytes += group.high.bytes() + group.low.bytes();
  return static_cast<int64_t>(bytes);
}

int64_t NestedStore::vector_bytes(int levels) const {
  return items() * sizes().end(levels - 1) * static_cast<int64_t>(sizeof(float));
}

}  // namespace nestrec

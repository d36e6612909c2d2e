#include "index/nested_codes.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/mapping_guard.h"
#include "base/status_macros.h"
#include "index/aligned_array.h"
#include "index/score.h"
#include "index/vector_kernels.h"

namespace nestrec {
namespace {

constexpr int64_t kRowsAtOnce = 512;  // that are encoded together
constexpr float kMostBound = 127;     // bound rows are byte rows

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Item row's vector divided by its norm (or by `scale`, the norm rounded up), into [D]. Returns the
// norm; kInvalidArgument names a value that is not finite.
absl::StatusOr<double> Direction(const LevelVectors& vectors, int64_t row, bool rounded_up,
                                 double* direction) {
  const int dim = vectors.sizes.max_dim();
  std::vector<float> values(static_cast<size_t>(dim));
  vectors.CopyRows(vectors.sizes.levels(), row + 1, values);
  double square = 0;
  for (int c = 0; c < dim; ++c) {
    const double value = static_cast<double>(values[static_cast<size_t>(c)]);
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat("item ", row + 1, " has ", value,
                                                     " in column ", c, "; vectors must be finite"));
    }
    direction[c] = value;
    square += value * value;
  }
  double norm = std::sqrt(square);
  if (rounded_up) norm = static_cast<double>(static_cast<float>(norm * (1 + 1e-6)));
  const double factor = norm > 0 && std::isfinite(norm) ? 1 / norm : 0;
  for (int c = 0; c < dim; ++c) direction[c] *= factor;
  return norm;
}

void Normalize(std::span<double> values) {
  double square = 0;
  for (const double value : values) square += value * value;
  const double factor = square > 0 ? 1 / std::sqrt(square) : 0;
  for (double& value : values) value *= factor;
}

std::vector<float> Inverse(const std::vector<float>& steps) {
  std::vector<float> inverse;
  for (const float step : steps) inverse.push_back(step > 0 ? 1 / step : 0);
  return inverse;
}

// A sum of squares' root, with the rounding of the float sums that it came from.
float RootUp(float square) { return std::sqrt(square) * (1 + 1e-3f); }

}  // namespace

// What is written while codes are made, and parts_ looks at.
struct NestedCodes::Arrays {
  struct Planes {
    AlignedArray<uint8_t> high, low;
  };
  AlignedArray<float> scales;
  AlignedArray<uint8_t> bounds;
  std::vector<Planes> planes;  // of the groups
};

// Per item and group, before they are rounded to bound rows.
struct NestedCodes::Measures {
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

absl::StatusOr<std::unique_ptr<const NestedCodes>> NestedCodes::Create(const LevelVectors& vectors,
                                                                       const Options& options) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  const size_t dim = static_cast<size_t>(vectors.sizes.max_dim());
  if (options.queries.size() % dim != 0) {
    return absl::InvalidArgumentError(absl::StrCat("examples of queries hold ",
                                                   options.queries.size(),
                                                   " values, which is no multiple of dim ", dim));
  }
  for (size_t i = 0; i < options.queries.size(); ++i) {
    if (!std::isfinite(options.queries[i])) {
      return absl::InvalidArgumentError(absl::StrCat("example ", i / dim, " of queries has ",
                                                     options.queries[i], " in column ", i % dim));
    }
  }
  return Guard("nested codes", [&]() -> absl::StatusOr<std::unique_ptr<const NestedCodes>> {
    std::unique_ptr<NestedCodes> codes(new NestedCodes(vectors));
    NESTREC_RETURN_IF_ERROR(codes->Build(options));
    return std::unique_ptr<const NestedCodes>(std::move(codes));
  });
}

std::unique_ptr<const NestedCodes> NestedCodes::FromParts(const LevelVectors& vectors,
                                                          Parts parts) {
  std::unique_ptr<NestedCodes> codes(new NestedCodes(vectors));
  codes->parts_ = std::move(parts);
  return codes;
}

int64_t NestedCodes::BoundBytes(int64_t groups) { return RoundUp(3 * groups, kRowAlignment); }

int64_t NestedCodes::RowBytes(int64_t columns) { return RoundUp((columns + 1) / 2, kRowAlignment); }

absl::Status NestedCodes::Build(const Options& options) {
  const int64_t n = items();
  if (!Worthwhile(dim(), n)) {
    // No codes, but the same checks.
    std::vector<double> direction(static_cast<size_t>(dim()));
    for (int64_t row = 0; row < n; ++row) {
      NESTREC_ASSIGN_OR_RETURN(const double norm,
                               Direction(vectors_, row, /*rounded_up=*/true, direction.data()));
      parts_.largest_norm = std::max(parts_.largest_norm, norm);
    }
    return absl::OkStatus();
  }
  NESTREC_RETURN_IF_ERROR(Fit(options));
  const auto arrays = std::make_shared<Arrays>();
  arrays->scales = AlignedArray<float>(static_cast<size_t>(n));
  parts_.scales = std::as_const(*arrays).scales.span();
  for (Group& group : parts_.groups) {
    const size_t bytes = static_cast<size_t>(n * group.row_bytes);
    Arrays::Planes& planes = arrays->planes.emplace_back();
    if (group.has_high) planes.high = AlignedArray<uint8_t>(bytes);
    if (group.has_low) planes.low = AlignedArray<uint8_t>(bytes);
    group.high = planes.high.span();
    group.low = planes.low.span();
  }
  Measures measures(n, static_cast<int64_t>(parts_.groups.size()));
  const int64_t blocks = (n + kRowsAtOnce - 1) / kRowsAtOnce;
  std::vector<absl::Status> statuses(static_cast<size_t>(blocks));
#pragma omp parallel for schedule(dynamic)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kRowsAtOnce;
    statuses[block] = Guard("nested codes", [&] {
      return EncodeRows(begin, std::min(kRowsAtOnce, n - begin), *arrays, measures);
    });
  }
  for (const absl::Status& status : statuses) NESTREC_RETURN_IF_ERROR(status);
  for (const float scale : parts_.scales) {
    parts_.largest_norm = std::isnan(scale)
                              ? std::numeric_limits<double>::infinity()
                              : std::max(parts_.largest_norm, static_cast<double>(scale));
    if (std::isinf(parts_.largest_norm)) break;
  }
  SetBounds(measures, *arrays);
  parts_.transform.encode = {};
  parts_.owner = arrays;
  return absl::OkStatus();
}

absl::Status NestedCodes::Fit(const Options& options) {
  const int64_t dim = this->dim();
  const int64_t n = items();
  const int64_t rows = std::min(n, std::max<int64_t>(1, options.fit_rows));
  std::vector<double> directions(static_cast<size_t>(rows * dim));
  for (int64_t i = 0; i < rows; ++i) {
    NESTREC_RETURN_IF_ERROR(
        Direction(vectors_, i * n / rows, /*rounded_up=*/false, directions.data() + i * dim)
            .status());
  }
  std::vector<double> queries(options.queries.begin(), options.queries.end());
  const int64_t examples = static_cast<int64_t>(queries.size()) / dim;
  for (int64_t i = 0; i < examples; ++i) Normalize(std::span(queries).subspan(i * dim, dim));
  NESTREC_ASSIGN_OR_RETURN(parts_.transform, FitNestedTransform(dim, directions, queries));
  // How long each column's weights are in an ordinary query.
  if (queries.empty()) queries = directions;
  std::vector<double> weights(static_cast<size_t>(dim));
  std::vector<double> y(static_cast<size_t>(dim));
  const int64_t from = static_cast<int64_t>(queries.size()) / dim;
  const int64_t asked = std::min<int64_t>(from, 256);
  for (int64_t i = 0; i < asked; ++i) {
    parts_.transform.DecodeTransposed(std::span(queries).subspan(i * from / asked * dim, dim), y);
    for (int64_t c = 0; c < dim; ++c) weights[c] += y[c] * y[c] / static_cast<double>(asked);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < dim; ++c) directions[i * dim + c] -= parts_.transform.mean[c];
  }
  std::vector<double> coordinates(directions.size());
  parts_.transform.Encode(directions, coordinates);
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
  MeasureSample(coordinates);
  ChoosePlanes(weights, options.kept_share);
  return absl::OkStatus();
}

void NestedCodes::MakeGroups(std::span<const double> deviations) {
  const int dim = static_cast<int>(this->dim());
  for (int begin = 0; begin < dim;) {
    Group group;
    group.begin = begin;
    group.end = std::min(dim, begin == 0 ? kFirstWidth : 2 * begin);
    group.row_bytes = RoundUp((group.end - begin + 1) / 2, kRowAlignment);
    for (int c = begin; c < group.end; ++c) {
      const double step = static_cast<double>(kStep) * deviations[static_cast<size_t>(c)];
      group.steps.push_back(step > 1e-30 ? static_cast<float>(step) : 0.0f);
    }
    begin = group.end;
    parts_.groups.push_back(std::move(group));
  }
}

void NestedCodes::MeasureSample(std::span<const double> coordinates) {
  const int64_t rows = static_cast<int64_t>(coordinates.size()) / dim();
  for (Group& group : parts_.groups) {
    const int64_t width = group.end - group.begin;
    std::vector<float> rounded(static_cast<size_t>(width));
    const std::vector<float> inverse = Inverse(group.steps);
    for (int64_t row = 0; row < rows; ++row) {
      const double* const from = coordinates.data() + row * dim() + group.begin;
      std::copy(from, from + width, rounded.begin());
      const EncodedGroup encoded = EncodeGroup(rounded.data(), inverse.data(), group.steps.data(),
                                               width, group.row_bytes, nullptr, nullptr);
      group.mean_norm += std::sqrt(static_cast<double>(encoded.square));
      group.mean_error4 += std::sqrt(static_cast<double>(encoded.error4));
      group.mean_error8 += std::sqrt(static_cast<double>(encoded.error8));
    }
    group.mean_norm /= static_cast<double>(rows);
    group.mean_error4 /= static_cast<double>(rows);
    group.mean_error8 /= static_cast<double>(rows);
  }
}

// Planes in the order in which they lower an ordinary query's bound the most for their bytes.
void NestedCodes::ChoosePlanes(std::span<const double> weights, double kept_share) {
  std::vector<double> lengths;
  double all = 0;
  for (const Group& group : parts_.groups) {
    double square = 0;
    for (int c = group.begin; c < group.end; ++c) square += weights[static_cast<size_t>(c)];
    lengths.push_back(std::sqrt(square));
    all += lengths.back() * group.mean_norm;
  }
  double left = all;
  while (left > kept_share * all) {
    Group* best = nullptr;
    double most = 0;
    double gained = 0;
    for (size_t g = 0; g < parts_.groups.size(); ++g) {
      Group& group = parts_.groups[g];
      if (group.has_low) continue;
      const double gain = lengths[g] * (group.has_high ? group.mean_error4 - group.mean_error8
                                                       : group.mean_norm - group.mean_error4);
      if (gain / static_cast<double>(group.row_bytes) > most) {
        most = gain / static_cast<double>(group.row_bytes);
        gained = gain;
        best = &group;
      }
    }
    if (best == nullptr) break;
    (best->has_high ? best->has_low : best->has_high) = true;
    left -= gained;
  }
}

absl::Status NestedCodes::EncodeRows(int64_t begin, int64_t count, Arrays& arrays,
                                     Measures& measures) {
  const int64_t dim = this->dim();
  std::vector<double> directions(static_cast<size_t>(count * dim));
  for (int64_t i = 0; i < count; ++i) {
    double* const direction = directions.data() + i * dim;
    NESTREC_ASSIGN_OR_RETURN(const double norm,
                             Direction(vectors_, begin + i, /*rounded_up=*/true, direction));
    // Bounds of a norm this large may leave float's range.
    constexpr float kLargest = std::numeric_limits<float>::max() / 65536;
    arrays.scales[static_cast<size_t>(begin + i)] = norm < static_cast<double>(kLargest)
                                                        ? static_cast<float>(norm)
                                                        : std::numeric_limits<float>::quiet_NaN();
    for (int64_t c = 0; c < dim; ++c) direction[c] -= parts_.transform.mean[c];
  }
  std::vector<double> coordinates(directions.size());
  parts_.transform.Encode(directions, coordinates);
  std::vector<float> rounded(static_cast<size_t>(dim));
  for (size_t g = 0; g < parts_.groups.size(); ++g) {
    const Group& group = parts_.groups[g];
    Arrays::Planes& planes = arrays.planes[g];
    const int64_t width = group.end - group.begin;
    const std::vector<float> inverse = Inverse(group.steps);
    float largest4 = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double* const from = coordinates.data() + i * dim + group.begin;
      std::copy(from, from + width, rounded.begin());
      const int64_t row = begin + i;
      const int64_t code = row * group.row_bytes;
      const EncodedGroup encoded =
          EncodeGroup(rounded.data(), inverse.data(), group.steps.data(), width, group.row_bytes,
                      group.has_high ? planes.high.data() + code : nullptr,
                      group.has_low ? planes.low.data() + code : nullptr);
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

void NestedCodes::SetBounds(const Measures& measures, Arrays& arrays) {
  const int64_t n = items();
  const int64_t groups = measures.groups;
  parts_.bound_bytes = BoundBytes(groups);
  arrays.bounds = AlignedArray<uint8_t>(static_cast<size_t>(n * parts_.bound_bytes));
  parts_.bounds = std::as_const(arrays).bounds.span();
  const auto set = [&](const std::vector<float>& values, size_t g, uint8_t* first) {
    float largest = 0;
    for (int64_t row = 0; row < n; ++row) {
      largest = std::max(largest, values[static_cast<size_t>(row * groups) + g]);
    }
    // A little more than the largest / 127, so that rounding never asks for 128.
    const float unit = largest / kMostBound * (1 + 1e-5f) + std::numeric_limits<float>::min();
    for (int64_t row = 0; row < n; ++row) {
      const float units = values[static_cast<size_t>(row * groups) + g] / unit * (1 + 1e-6f);
      first[row * parts_.bound_bytes] =
          static_cast<uint8_t>(std::min(kMostBound, std::ceil(units)));
    }
    return unit;
  };
  for (size_t g = 0; g < parts_.groups.size(); ++g) {
    Group& group = parts_.groups[g];
    uint8_t* const first = arrays.bounds.data() + g;
    group.norm_unit = set(measures.norms, g, first);
    group.error4_unit = set(measures.errors4, g, first + groups);
    group.error8_unit = set(measures.errors8, g, first + 2 * groups);
    group.value4_norm = RootUp(measures.largest_value4[g].load());
  }
}

void NestedCodes::Scores(std::span<const float> query, int64_t begin, int64_t count, double* sums,
                         float* scores) const {
  LevelDots(query, vectors_, vectors_.sizes.levels(), begin + 1, count, sums);
  for (int64_t i = 0; i < count; ++i) scores[i] = ScoreFromSum(sums[i]);
}

void NestedCodes::ScoresAt(std::span<const float> query, std::span<const int32_t> rows,
                           double* sums, float* scores) const {
  LevelDotsAt(query, vectors_, vectors_.sizes.levels(), 1, rows, sums);
  for (size_t i = 0; i < rows.size(); ++i) scores[i] = ScoreFromSum(sums[i]);
}

bool NestedCodes::intact() const {
  // Parts of one file are one mapping, but an index may have some in memory of its own.
  return !LostBytes(parts_.scales.data()) && !LostBytes(parts_.bounds.data()) &&
         std::none_of(parts_.groups.begin(), parts_.groups.end(), [](const Group& group) {
           return LostBytes(group.high.data()) || LostBytes(group.low.data());
         });
}

int64_t NestedCodes::bytes() const {
  size_t bytes = parts_.scales.size_bytes() + parts_.bounds.size();
  for (const Group& group : parts_.groups) bytes += group.high.size() + group.low.size();
  return static_cast<int64_t>(bytes);
}

}  // namespace nestrec

#include "index/nested_query.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace nestrec {
namespace {

constexpr int kLargestWeight = 127;

float RoundedUp(double value) {
  return std::nextafter(static_cast<float>(value), std::numeric_limits<float>::infinity());
}

// Integers and a scale with integer * scale >= value, for values >= 0.
float WeightsUp(std::span<const double> values, std::span<int8_t> weights) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, value);
  const float scale = RoundedUp(largest / kLargestWeight * (1 + 1e-6));
  for (size_t i = 0; i < values.size(); ++i) {
    const double units = std::ceil(values[i] / static_cast<double>(scale));
    weights[i] = static_cast<int8_t>(std::min<double>(kLargestWeight, units));
  }
  return scale;
}

// The exponent that scales the largest value into [1/2, 1).
int ExponentOf(std::span<const float> query) {
  float largest = 0;
  for (const float value : query) largest = std::max(largest, std::abs(value));
  int exponent = 0;
  std::frexp(largest, &exponent);
  return exponent;
}

}  // namespace

std::vector<double> NestedQuery::Weights(const NestedCodes& codes,
                                         std::span<const std::span<const float>> queries) {
  std::vector<double> z;
  for (const auto query : queries) {
    const int exponent = ExponentOf(query);
    for (const float value : query) {
      z.push_back(std::ldexp(static_cast<double>(value), -exponent));
    }
  }
  std::vector<double> y(z.size());
  codes.transform().DecodeTransposed(z, y);
  return y;
}

NestedQuery::NestedQuery(const NestedCodes& codes, std::span<const float> query,
                         std::span<const double> weights, float share)
    : codes_(codes), query_(query), share_(share), exponent_(ExponentOf(query)) {
  double shift = 0;
  double square = 0;
  for (size_t c = 0; c < query.size(); ++c) {
    const double z = std::ldexp(static_cast<double>(query[c]), -exponent_);
    shift += z * codes.transform().mean[c];
    square += z * z;
  }
  length_ = std::sqrt(square);
  start_ = static_cast<float>(shift);
  groups_.reserve(codes.groups().size());
  for (const NestedCodes::Group& group : codes.groups()) {
    MakeGroup(group, weights.subspan(static_cast<size_t>(group.begin),
                                     static_cast<size_t>(group.end - group.begin)));
  }
  MakeSteps();
  std::vector<Read> read(groups_.size(), Read::kNothing);
  slacks_.push_back(MakeSlack(read));
  for (const Step& step : steps_) {
    read[static_cast<size_t>(step.group)] = step.low ? Read::kBoth : Read::kHigh;
    slacks_.push_back(MakeSlack(read));
  }
}

void NestedQuery::MakeSteps() {
  // What is gained for a byte, by group: first by the high codes, then by the low ones.
  struct Gain {
    double high, low;
  };
  std::vector<Gain> gains;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const NestedCodes::Group& codes = codes_.groups()[g];
    const Group& group = groups_[g];
    const double bytes = static_cast<double>(codes.row_bytes);
    const double rounding = group.residual * static_cast<double>(codes.value4_norm);
    gains.push_back({(group.length * (codes.mean_norm - codes.mean_error4) - rounding) / bytes,
                     (group.length * (codes.mean_error4 - codes.mean_error8) + rounding) / bytes});
  }
  std::vector<Read> read(groups_.size(), Read::kNothing);
  while (true) {
    size_t best = groups_.size();
    double most = 0;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const NestedCodes::Group& codes = codes_.groups()[g];
      const bool there =
          read[g] == Read::kNothing ? codes.has_high : read[g] == Read::kHigh && codes.has_low;
      if (!there) continue;
      const double gain = read[g] == Read::kNothing ? gains[g].high : gains[g].low;
      if (best == groups_.size() || gain > most) {
        best = g;
        most = gain;
      }
    }
    if (best == groups_.size()) return;
    const bool low = read[best] == Read::kHigh;
    read[best] = low ? Read::kBoth : Read::kHigh;
    steps_.push_back({static_cast<int>(best), low});
  }
}

void NestedQuery::MakeGroup(const NestedCodes::Group& codes, std::span<const double> y) {
  Group& group = groups_.emplace_back();
  const int64_t row_bytes = codes.row_bytes;
  group.weights.resize(static_cast<size_t>(2 * row_bytes));
  group.finer.resize(group.weights.size());
  double square = 0;
  double largest = 0;
  for (size_t c = 0; c < y.size(); ++c) {
    square += y[c] * y[c];
    largest = std::max(largest, std::abs(y[c] * static_cast<double>(codes.steps[c])));
  }
  group.length = std::sqrt(square);
  // Codes enter as 2 <n, code>, so the scale is half of q; rounded first, so that d knows of it.
  const float scale = RoundedUp(largest / kLargestWeight / 2 * (1 + 1e-6));
  const double q = 2 * static_cast<double>(scale);
  double residual = 0;
  double fine_residual = 0;
  int32_t sum = 0;
  int32_t fine_sum = 0;
  int32_t absolute_sum = 0;
  for (size_t c = 0; c < y.size(); ++c) {
    const double weight = y[c] * static_cast<double>(codes.steps[c]);
    const double rounded =
        std::clamp<double>(std::nearbyint(weight / q), -kLargestWeight, kLargestWeight);
    const double left = weight - q * rounded;
    const double finer =
        std::clamp<double>(std::nearbyint(left / (q / 128)), -kLargestWeight, kLargestWeight);
    residual += left * left;
    fine_residual += (left - q / 128 * finer) * (left - q / 128 * finer);
    group.weights[c] = static_cast<int8_t>(rounded);
    group.finer[c] = static_cast<int8_t>(finer);
    sum += static_cast<int32_t>(rounded);
    fine_sum += static_cast<int32_t>(finer);
    absolute_sum += std::abs(static_cast<int32_t>(rounded)) + 1;
  }
  group.residual = std::sqrt(residual);
  group.fine_residual = std::sqrt(fine_residual);
  group.largest = static_cast<double>(scale) * 15 * absolute_sum * (1 + 1.0 / 16);
  group.high = {group.weights.data(), group.weights.data() + row_bytes, 15 * sum, scale};
  group.low = {group.weights.data(), group.weights.data() + row_bytes, 15 * sum, scale / 16};
  group.fine = {group.finer.data(), group.finer.data() + row_bytes, 15 * fine_sum, scale / 128};
}

double NestedQuery::Constant(std::span<const Read> read) const {
  double lengths = 0;
  double largest = std::abs(static_cast<double>(start_));
  double residuals = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const NestedCodes::Group& codes = codes_.groups()[g];
    const Group& group = groups_[g];
    lengths += group.length;
    largest += group.largest +
               group.length * 127.0 *
                   static_cast<double>(codes.norm_unit + codes.error4_unit + codes.error8_unit);
    const double value = static_cast<double>(codes.value4_norm);
    if (read[g] == Read::kHigh) residuals += group.residual * value;
    if (read[g] == Read::kBoth) {
      residuals += group.fine_residual * value +
                   group.residual * 0.5 * std::sqrt(static_cast<double>(codes.end - codes.begin));
    }
  }
  const double rounding = (4.0 * groups() + 16) * 0x1p-23 * (largest + residuals);
  return share_ * residuals + rounding + length_ * (codes_.transform().error + 1e-10) +
         1e-15 * lengths + 1e-30;
}

NestedQuery::Slack NestedQuery::MakeSlack(std::span<const Read> read) const {
  std::vector<double> weights(static_cast<size_t>(codes_.bounds().row_bytes));
  const size_t groups = groups_.size();
  for (size_t g = 0; g < groups; ++g) {
    const NestedCodes::Group& codes = codes_.groups()[g];
    const double length = share_ * groups_[g].length;
    switch (read[g]) {
      case Read::kNothing:
        weights[g] = length * static_cast<double>(codes.norm_unit);
        break;
      case Read::kHigh:
        weights[groups + g] = length * static_cast<double>(codes.error4_unit);
        break;
      case Read::kBoth:
        weights[2 * groups + g] = length * static_cast<double>(codes.error8_unit);
        break;
    }
  }
  Slack slack;
  slack.constant = RoundedUp(Constant(read));
  slack.weights.resize(weights.size());
  slack.scale = WeightsUp(weights, slack.weights);
  return slack;
}

float NestedQuery::PruneBelow(float score) const {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  const double exact = static_cast<double>(score);
  const double limit =
      std::ldexp(exact - std::abs(exact) * 0x1p-20 - 0x1p-140, -exponent_) - 0x1p-140;
  if (!(limit > static_cast<double>(kLowest))) return kLowest;
  const float rounded =
      static_cast<float>(std::min(limit, static_cast<double>(std::numeric_limits<float>::max())));
  return std::nextafter(rounded, kLowest);
}

float NestedQuery::Reaches(float bound) const {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  if (!std::isfinite(bound))
    return kLowest;  // NaN and minus infinity say nothing; no score is higher than a bound
  const double exact = static_cast<double>(bound);
  const double least = std::ldexp(exact - std::abs(exact) * 0x1p-20 - 0x1p-140, exponent_);
  const double score = least - std::abs(least) * 0x1p-20 - 0x1p-140;
  if (!(score > static_cast<double>(kLowest))) return kLowest;
  constexpr double kHighest = std::numeric_limits<float>::max();
  return std::nextafter(static_cast<float>(std::min(score, kHighest)), kLowest);
}

}  // namespace nestrec

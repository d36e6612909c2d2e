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

}  // namespace

NestedQuery::NestedQuery(const NestedStore& store, std::span<const float> query, int levels,
                         float share)
    : store_(store), query_(query), levels_(levels), share_(share) {
  float largest = 0;
  for (const float value : query) largest = std::max(largest, std::abs(value));
  std::frexp(largest, &exponent_);
  const int64_t dim = store.sizes().max_dim();
  std::vector<double> z(static_cast<size_t>(dim));
  double shift = 0;
  double square = 0;
  for (size_t c = 0; c < query.size(); ++c) {
    z[c] = std::ldexp(static_cast<double>(query[c]), -exponent_);
    shift += z[c] * store.transform().mean[c];
    square += z[c] * z[c];
  }
  length_ = std::sqrt(square);
  start_ = static_cast<float>(shift);
  std::vector<double> y(static_cast<size_t>(dim));
  store.transform().DecodeTransposed(std::span(z).first(query.size()), levels,
                                     std::span(y).first(query.size()));
  const int groups = store.groups_of(levels);
  groups_.reserve(static_cast<size_t>(groups));
  for (int g = 0; g < groups; ++g) {
    const NestedStore::Group& codes = store.groups()[static_cast<size_t>(g)];
    MakeGroup(codes,
              std::span<const double>(y).subspan(static_cast<size_t>(codes.begin),
                                                 static_cast<size_t>(codes.end - codes.begin)));
  }
  const size_t half = static_cast<size_t>(store.bounds4().row_bytes / 2);
  std::vector<double> weights(2 * half);
  for (int read = 0; read <= groups; ++read) {
    std::fill(weights.begin(), weights.end(), 0.0);
    for (int g = 0; g < groups; ++g) {
      const NestedStore::Group& codes = store.groups()[static_cast<size_t>(g)];
      const double length = share_ * groups_[static_cast<size_t>(g)].length;
      if (g < read) {
        weights[half + static_cast<size_t>(g)] = length * codes.error4_unit;
      } else {
        weights[static_cast<size_t>(g)] = length * codes.norm_unit;
      }
    }
    Slack& slack = slack4_.emplace_back();
    slack.weights4.resize(2 * half);
    slack.scale4 = WeightsUp(weights, slack.weights4);
    slack.constant = RoundedUp(Constant(read, /*eight_bits=*/false));
  }
}

void NestedQuery::MakeGroup(const NestedStore::Group& codes, std::span<const double> y) {
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

double NestedQuery::Constant(int read, bool eight_bits) const {
  double lengths = 0;
  double largest = std::abs(static_cast<double>(start_));
  double residuals = 0;
  for (int g = 0; g < groups(); ++g) {
    const NestedStore::Group& codes = store_.groups()[static_cast<size_t>(g)];
    const Group& group = groups_[static_cast<size_t>(g)];
    lengths += group.length;
    largest += group.largest +
               group.length * 127.0 *
                   static_cast<double>(codes.norm_unit + codes.error4_unit + codes.error8_unit);
    if (g >= read) continue;
    const double value = static_cast<double>(codes.value4_norm);
    if (eight_bits) {
      residuals += group.fine_residual * value +
                   group.residual * 0.5 * std::sqrt(static_cast<double>(codes.end - codes.begin));
    } else {
      residuals += group.residual * value;
    }
  }
  const double rounding = (4.0 * groups() + 16) * 0x1p-23 * (largest + residuals);
  return share_ * residuals + rounding + length_ * (store_.transform().error + 1e-10) +
         1e-15 * lengths + 1e-30;
}

NestedQuery::Slack NestedQuery::slack8(int read) const {
  Slack slack;
  slack.constant = RoundedUp(Constant(read, /*eight_bits=*/true));
  std::vector<double> weights4(static_cast<size_t>(store_.bounds4().row_bytes));
  std::vector<double> weights8(static_cast<size_t>(store_.bounds8().row_bytes));
  for (int g = 0; g < groups(); ++g) {
    const NestedStore::Group& codes = store_.groups()[static_cast<size_t>(g)];
    const double length = share_ * groups_[static_cast<size_t>(g)].length;
    if (g < read) {
      weights8[static_cast<size_t>(g)] = length * codes.error8_unit;
    } else {
      weights4[static_cast<size_t>(g)] = length * codes.norm_unit;
    }
  }
  slack.weights4.resize(weights4.size());
  slack.weights8.resize(weights8.size());
  slack.scale4 = WeightsUp(weights4, slack.weights4);
  slack.scale8 = WeightsUp(weights8, slack.weights8);
  return slack;
}

float NestedQuery::unread_share(int read) const {
  double all = 0;
  double unread = 0;
  for (int g = 0; g < groups(); ++g) {
    const double most =
        groups_[static_cast<size_t>(g)].length * store_.groups()[static_cast<size_t>(g)].norm_unit;
    all += most;
    unread += g < read ? 0 : most;
  }
  return all > 0 ? static_cast<float>(unread / all) : 0;
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

}  // namespace nestrec

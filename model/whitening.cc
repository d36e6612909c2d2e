#include "model/whitening.h"

#include <algorithm>

namespace nestrec {

using torch::Tensor;

namespace {

// Double precision takes twice the features' memory: for so many rows at a time.
constexpr int64_t kRowsAtOnce = 1 << 14;

// Calls body(rows as double, first row) for all rows of features [items + 1, F] but row 0.
template <typename Body>
void ForItems(const Tensor& features, Body&& body) {
  for (int64_t begin = 1; begin < features.size(0); begin += kRowsAtOnce) {
    const int64_t end = std::min(features.size(0), begin + kRowsAtOnce);
    body(features.slice(0, begin, end).to(torch::kFloat64), begin);
  }
}

// [F]
Tensor MeanOf(const Tensor& features) {
  Tensor sum = torch::zeros({features.size(1)}, torch::kFloat64);
  ForItems(features, [&](const Tensor& rows, int64_t) { sum += rows.sum(0); });
  return sum / static_cast<double>(features.size(0) - 1);
}

// Of the columns [at, at + width): [width, width].
Tensor CovarianceOf(const Tensor& features, const Tensor& mean, int64_t at, int64_t width) {
  Tensor sum = torch::zeros({width, width}, torch::kFloat64);
  const Tensor part = features.narrow(1, at, width);
  ForItems(part, [&](const Tensor& rows, int64_t) {
    const Tensor centred = rows - mean.narrow(0, at, width);
    sum.addmm_(centred.t(), centred);
  });
  return sum / static_cast<double>(features.size(0) - 1);
}

}  // namespace

Projector PrincipalProjector(const Tensor& features, int64_t rows) {
  const Tensor mean = MeanOf(features);
  const auto [values, vectors] = torch::linalg_eigh(
      CovarianceOf(features, mean, 0, features.size(1)), "L");    // ascending, columns
  const Tensor weight = vectors.flip({1}).t().slice(0, 0, rows);  // [min(rows, F), F]
  return {weight.to(torch::kFloat32).contiguous(),
          (-torch::mv(weight, mean)).to(torch::kFloat32).contiguous()};
}

Whitening::Whitening(const Tensor& features, const std::vector<int64_t>& widths) {
  mean_ = MeanOf(features);
  matrix_ = torch::zeros({features.size(1), features.size(1)}, torch::kFloat64);
  int64_t at = 0;
  for (const int64_t width : widths) {
    const auto [values, vectors] = torch::linalg_eigh(CovarianceOf(features, mean_, at, width),
                                                      "L");  // ascending; vectors are columns
    const Tensor variances = values.clamp_min(0).flip({0});
    const Tensor floor = variances.mean() * kRegularisation + 1e-30;
    const Tensor scale = torch::rsqrt(variances + floor);
    Tensor block = matrix_.narrow(0, at, width).narrow(1, at, width);
    block.copy_(vectors.flip({1}).t() * scale.unsqueeze(1));
    at += width;
  }
}

void Whitening::ApplyTo(Tensor& features) const {
  features[0].zero_();
  ForItems(features, [&](const Tensor& rows, int64_t begin) {
    features.slice(0, begin, begin + rows.size(0)).copy_(torch::mm(rows - mean_, matrix_.t()));
  });
}

Tensor Whitening::Apply(const Tensor& features) const {
  Tensor whitened = features.clone();
  ApplyTo(whitened);
  return whitened;
}

Projector Whitening::Fold(const Tensor& weight, const Tensor& bias) const {
  const Tensor raw = torch::mm(weight.to(torch::kFloat64), matrix_);  // [D, F]
  const Tensor shift = bias.to(torch::kFloat64) - torch::mv(raw, mean_);
  return {raw.to(torch::kFloat32).contiguous(), shift.to(torch::kFloat32).contiguous()};
}

}  // namespace nestrec

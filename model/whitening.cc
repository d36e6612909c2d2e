#include "model/whitening.h"

namespace nestrec {

using torch::Tensor;

Projector PrincipalProjector(const Tensor& features, int64_t rows) {
  const Tensor items = features.slice(0, 1).to(torch::kFloat64);  // [N, F]
  const Tensor mean = items.mean(0);
  const Tensor centred = items - mean;
  const Tensor covariance = torch::mm(centred.t(), centred) / static_cast<double>(centred.size(0));
  const auto [values, vectors] = torch::linalg_eigh(covariance, "L");  // ascending, columns
  const Tensor weight = vectors.flip({1}).t().slice(0, 0, rows);       // [min(rows, F), F]
  return {weight.to(torch::kFloat32).contiguous(),
          (-torch::mv(weight, mean)).to(torch::kFloat32).contiguous()};
}

Whitening::Whitening(const Tensor& features, const std::vector<int64_t>& widths) {
  const Tensor rows = features.slice(0, 1).to(torch::kFloat64);  // [N, F]
  mean_ = rows.mean(0);
  matrix_ = torch::zeros({features.size(1), features.size(1)}, torch::kFloat64);
  int64_t at = 0;
  for (const int64_t width : widths) {
    const Tensor centred = rows.narrow(1, at, width) - mean_.narrow(0, at, width);
    const Tensor covariance =
        torch::mm(centred.t(), centred) / static_cast<double>(centred.size(0));
    const auto [values, vectors] =
        torch::linalg_eigh(covariance, "L");  // ascending; vectors are columns
    const Tensor variances = values.clamp_min(0).flip({0});
    const Tensor floor = variances.mean() * kRegularisation + 1e-30;
    const Tensor scale = torch::rsqrt(variances + floor);
    Tensor block = matrix_.narrow(0, at, width).narrow(1, at, width);
    block.copy_(vectors.flip({1}).t() * scale.unsqueeze(1));
    at += width;
  }
}

Tensor Whitening::Apply(const Tensor& features) const {
  Tensor whitened = torch::zeros_like(features);
  const Tensor rows = features.slice(0, 1).to(torch::kFloat64);
  whitened.slice(0, 1).copy_(torch::mm(rows - mean_, matrix_.t()));
  return whitened;
}

Projector Whitening::Fold(const Tensor& weight, const Tensor& bias) const {
  const Tensor raw = torch::mm(weight.to(torch::kFloat64), matrix_);  // [D, F]
  const Tensor shift = bias.to(torch::kFloat64) - torch::mv(raw, mean_);
  return {raw.to(torch::kFloat32).contiguous(), shift.to(torch::kFloat32).contiguous()};
}

}  // namespace nestrec

#include "model/nested_products.h"

#include <ATen/Dispatch.h>
#include <torch/torch.h>

namespace nestrec {

using torch::Tensor;

int64_t RaggedWeights(const NestedSizes& sizes) {
  int64_t count = 0;
  for (int level = 0; level < sizes.levels(); ++level) {
    count += static_cast<int64_t>(sizes.width(level)) * sizes.end(level);
  }
  return count;
}

Tensor RaggedLevel(const Tensor& weight, const NestedSizes& sizes, int level) {
  int64_t at = 0;
  for (int below = 0; below < level; ++below)
    at += static_cast<int64_t>(sizes.width(below)) * sizes.end(below);
  const int64_t width = sizes.width(level);
  const int64_t columns = sizes.end(level);
  return weight.narrow(0, at, width * columns).view({width, columns});
}

Tensor Columns(const Tensor& x, int64_t begin, int64_t end) {
  return x.narrow(1, begin, end - begin);
}

void MultiplyInto(Tensor out, const Tensor& a, Op op_a, const Tensor& b, Op op_b, double beta,
                  const Arithmetic& arithmetic) {
  if (arithmetic.portable || !out.device().is_cpu()) {
    const Tensor left = op_a == Op::kTranspose ? a.t() : a;
    const Tensor right = op_b == Op::kTranspose ? b.t() : b;
    if (beta == 0) {
      torch::mm_out(out, left, right);
    } else {
      torch::addmm_out(out, out, left, right, beta);
    }
    return;
  }
  TORCH_CHECK(a.stride(1) == 1 && b.stride(1) == 1 && out.stride(1) == 1,
              "MultiplyInto: rows must be contiguous");
  const int64_t inner = a.size(op_a == Op::kTranspose ? 0 : 1);
  if (arithmetic.precision == Precision::kBfloat16 && out.scalar_type() == torch::kFloat32) {
    return GemmBfloat16(op_a, op_b, out.size(0), out.size(1), inner,
                        {.values = a.data_ptr<float>(), .stride = a.stride(0)},
                        {.values = b.data_ptr<float>(), .stride = b.stride(0)},
                        static_cast<float>(beta), out.data_ptr<float>(), out.stride(0));
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "MultiplyInto", [&] {
    Gemm(op_a, op_b, out.size(0), out.size(1), inner, a.data_ptr<scalar_t>(), a.stride(0),
         b.data_ptr<scalar_t>(), b.stride(0), static_cast<scalar_t>(beta), out.data_ptr<scalar_t>(),
         out.stride(0));
  });
}

void NestedProduct(const Tensor& out, const Tensor& x, const Tensor& weight,
                   const NestedSizes& sizes, double beta, const Arithmetic& arithmetic) {
  for (int level = 0; level < sizes.levels(); ++level) {
    MultiplyInto(Columns(out, sizes.begin(level), sizes.end(level)),  // [P, w_j]
                 Columns(x, 0, sizes.end(level)), Op::kNone, RaggedLevel(weight, sizes, level),
                 Op::kTranspose, beta, arithmetic);
  }
}

void AddNestedInputGradient(const Tensor& dx, const Tensor& dy, const Tensor& weight,
                            const NestedSizes& sizes, const Arithmetic& arithmetic) {
  for (int level = 0; level < sizes.levels(); ++level) {
    MultiplyInto(Columns(dx, 0, sizes.end(level)),
                 Columns(dy, sizes.begin(level), sizes.end(level)), Op::kNone,
                 RaggedLevel(weight, sizes, level), Op::kNone, 1, arithmetic);
  }
}

Tensor NestedWeightGradient(const Tensor& dy, const Tensor& x, const NestedSizes& sizes,
                            const Arithmetic& arithmetic) {
  Tensor dweight = torch::empty({RaggedWeights(sizes)}, dy.options());
  for (int level = 0; level < sizes.levels(); ++level) {
    MultiplyInto(RaggedLevel(dweight, sizes, level),  // [w_j, s_j]
                 Columns(dy, sizes.begin(level), sizes.end(level)), Op::kTranspose,
                 Columns(x, 0, sizes.end(level)), Op::kNone, 0, arithmetic);
  }
  return dweight;
}

}  // namespace nestrec

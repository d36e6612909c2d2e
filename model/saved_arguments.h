// Arguments that are no tensors, kept by an autograd function for its way back.
//
// Thread safety: as the context's.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "base/nested_sizes.h"
#include "model/nested_products.h"

namespace nestrec {

inline void Save(const NestedSizes& sizes, const Arithmetic& arithmetic,
                 torch::autograd::AutogradContext* ctx) {
  ctx->saved_data["sizes"] = std::vector<int64_t>(sizes.values().begin(), sizes.values().end());
  ctx->saved_data["precision"] = static_cast<int64_t>(arithmetic.precision);
  ctx->saved_data["portable"] = arithmetic.portable;
}

inline NestedSizes SavedSizes(torch::autograd::AutogradContext* ctx) {
  const std::vector<int64_t> sizes = ctx->saved_data["sizes"].toIntVector();
  return NestedSizes::Create(std::vector<int>(sizes.begin(), sizes.end())).value();
}

inline Arithmetic SavedArithmetic(torch::autograd::AutogradContext* ctx) {
  return {static_cast<Precision>(ctx->saved_data["precision"].toInt()),
          ctx->saved_data["portable"].toBool()};
}

}  // namespace nestrec

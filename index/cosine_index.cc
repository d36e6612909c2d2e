#include "index/cosine_index.h"

#include <algorithm>
#include <cmath>

#include "base/guard.h"
#include "base/status_macros.h"
#include "index/exhaustive_search.h"
#include "index/score.h"
#include "index/top_items.h"
#include "index/vector_kernels.h"

namespace nestrec {
namespace {

// Rows at a time: their sums stay in the nearest cache.
constexpr int64_t kBlock = 512;

}  // namespace

absl::StatusOr<std::shared_ptr<const ItemNorms>> ItemNorms::Create(const LevelVectors& vectors) {
  NESTREC_RETURN_IF_ERROR(vectors.Validate());
  return Guard("measuring item vectors", [&]() -> absl::StatusOr<std::shared_ptr<const ItemNorms>> {
    auto norms = std::make_shared<ItemNorms>();
    std::vector<double> squares(static_cast<size_t>(vectors.rows), 0.0);
    std::vector<float> part;
    for (int level = 0; level < vectors.sizes.levels(); ++level) {
      part.resize(static_cast<size_t>(vectors.sizes.width(level)));
      for (int64_t row = 0; row < vectors.rows; ++row) {
        vectors.CopyRow(level, row, part);
        squares[static_cast<size_t>(row)] += Dot(part, part);
      }
      norms->squares_.push_back(squares);
    }
    return norms;
  });
}

double SquareOf(std::span<const float> vector, const NestedSizes& sizes, int levels) {
  double square = 0;
  for (int level = 0; level < levels; ++level) {
    const std::span<const float> part = vector.subspan(static_cast<size_t>(sizes.begin(level)),
                                                       static_cast<size_t>(sizes.width(level)));
    square += Dot(part, part);
  }
  return square;
}

float CosineFromSums(double product, double query_square, double item_square) {
  // Not the root of the product, which may leave double's range.
  const double lengths = std::sqrt(query_square) * std::sqrt(item_square);
  return lengths > 0 ? ScoreFromSum(std::clamp(product / lengths, -1.0, 1.0)) : 0.0f;
}

absl::StatusOr<SearchResult> CosineIndex::Search(std::span<const float> query,
                                                 const SearchOptions& options) const {
  NESTREC_RETURN_IF_ERROR(CheckSearch(query, options, dim(), items()));
  return Guard("searching by cosine", [&]() -> absl::StatusOr<SearchResult> {
    const std::span<const double> squares = norms_->squares(levels_);
    const double query_square = SquareOf(query, vectors_.sizes, levels_);
    SearchResult result{.items = {}, .exact = true, .rescored = 0};
    TopItems best(std::min(options.k, items()), options.min_score);
    const auto offer = [&](int32_t item, double product) {
      ++result.rescored;
      best.Offer(item, CosineFromSums(product, query_square, squares[static_cast<size_t>(item)]));
    };
    std::vector<double> sums(static_cast<size_t>(kBlock));
    if (options.filter != nullptr && options.filter->few().has_value()) {
      const std::span<const int32_t> few = *options.filter->few();
      for (size_t begin = 0; begin < few.size(); begin += kBlock) {
        const auto listed = few.subspan(begin, std::min<size_t>(kBlock, few.size() - begin));
        LevelDotsAt(query, vectors_, levels_, 0, listed, sums.data());
        for (size_t i = 0; i < listed.size(); ++i) offer(listed[i], sums[i]);
      }
    } else {
      for (int64_t begin = 1; begin < vectors_.rows; begin += kBlock) {
        const int64_t count = std::min(kBlock, vectors_.rows - begin);
        LevelDots(query, vectors_, levels_, begin, count, sums.data());
        for (int64_t i = 0; i < count; ++i) {
          if (options.filter != nullptr && !options.filter->Allows(begin + i)) continue;
          offer(static_cast<int32_t>(begin + i), sums[static_cast<size_t>(i)]);
        }
      }
    }
    result.items = best.Take();
    return result;
  });
}

}  // namespace nestrec

// Item vectors for the tests of index/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/nested_sizes.h"
#include "base/random.h"
#include "index/level_vectors.h"

namespace nestrec {

inline std::vector<float> GaussianVector(size_t length, Random& random) {
  std::vector<float> values(length);
  for (float& value : values) {
    value = static_cast<float>(random.Normal());
  }
  return values;
}

// Owns what a LevelVectors looks at. Row 0 is large, so that returning the padding item would show.
struct TestVectors {
  NestedSizes sizes;
  int64_t rows;
  std::vector<std::vector<float>> levels;      // [rows, width(j)]
  std::vector<std::vector<Half>> halves = {};  // the same, after Round()

  static TestVectors Zeros(int64_t items, std::vector<int> sizes) {
    TestVectors vectors{
        .sizes = *NestedSizes::Create(std::move(sizes)), .rows = items + 1, .levels = {}};
    for (int level = 0; level < vectors.sizes.levels(); ++level) {
      const size_t width = static_cast<size_t>(vectors.sizes.width(level));
      vectors.levels.emplace_back(static_cast<size_t>(vectors.rows) * width, 0.0f);
      std::fill_n(vectors.levels.back().begin(), width, 6e4f);
    }
    return vectors;
  }

  static TestVectors Gaussian(int64_t items, std::vector<int> sizes, Random& random) {
    TestVectors vectors = Zeros(items, std::move(sizes));
    for (int64_t item = 1; item <= items; ++item) {
      for (int level = 0; level < vectors.sizes.levels(); ++level) {
        for (float& value : vectors.row(level, item)) {
          value = static_cast<float>(random.Normal());
        }
      }
    }
    return vectors;
  }

  std::span<float> row(int level, int64_t item) {
    const size_t width = static_cast<size_t>(sizes.width(level));
    return std::span(levels[static_cast<size_t>(level)])
        .subspan(static_cast<size_t>(item) * width, width);
  }

  // Every value becomes the nearest float16, and stored() is in float16 from then on, so that
  // view() is what searches of stored() must agree with.
  void Round() {
    halves.clear();
    for (std::vector<float>& level : levels) {
      std::vector<Half>& rounded = halves.emplace_back();
      for (float& value : level) {
        rounded.push_back(HalfOfFloat(value));
        value = FloatOfHalf(rounded.back());
      }
    }
  }

  // What searches are given.
  LevelVectors stored() const {
    if (halves.empty()) return view();
    LevelVectors stored{.sizes = sizes, .rows = rows, .levels = {}};
    for (const std::vector<Half>& level : halves) {
      stored.halves.emplace_back(level);
    }
    return stored;
  }

  LevelVectors view() const {
    LevelVectors view{.sizes = sizes, .rows = rows, .levels = {}};
    for (const std::vector<float>& level : levels) {
      view.levels.emplace_back(level);
    }
    return view;
  }
};

}  // namespace nestrec

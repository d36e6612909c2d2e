// The encoder against the definition of every architecture, written out for one history in double
// precision: no packing, no buffers, no products of a library.
#include "model/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

using Vector = std::vector<double>;

class Oracle {
 public:
  explicit Oracle(const ModelView& view) : view_(view), dim_(view.sizes.max_dim()) {}

  // z of the history's last item.
  Vector Encode(const std::vector<int32_t>& history) const {
    std::vector<int32_t> items = history;
    if (static_cast<int>(items.size()) > view_.max_len) {
      items.erase(items.begin(), items.end() - view_.max_len);
    }
    if (items.empty()) items = {0};
    std::vector<Vector> x;
    for (size_t t = 0; t < items.size(); ++t) {
      Vector row = PerLevel([&](int level, size_t c, size_t width) {
        const size_t l = static_cast<size_t>(level);
        double value = view_.items[l][static_cast<size_t>(items[t]) * width + c];
        value *= static_cast<double>(view_.architecture.input_scale);
        if (view_.architecture.mixer == Mixer::kAttention) {
          value += view_.positions[l][t * width + c];
        }
        return value;
      });
      x.push_back(row);
    }
    for (const std::vector<BlockLevel>& block : view_.blocks) {
      std::vector<Vector> n;
      for (const Vector& row : x) {
        n.push_back(Norm(row, [&](size_t l) {
          return NormLevel{block[l].norm1_scale, block[l].norm1_shift};
        }));
      }
      const std::vector<Vector> mixed = Mix(block, n);
      for (size_t t = 0; t < x.size(); ++t) {
        for (size_t c = 0; c < x[t].size(); ++c) x[t][c] += mixed[t][c];
        const Vector u = Norm(x[t], [&](size_t l) {
          return NormLevel{block[l].norm2_scale, block[l].norm2_shift};
        });
        Vector inner = Linear(block, &BlockLevel::w1, u);
        if (view_.architecture.feed_forward == FeedForward::kGated) {
          const Vector gate = Linear(block, &BlockLevel::wg, u);
          for (size_t c = 0; c < inner.size(); ++c) {
            inner[c] *= gate[c] / (1 + std::exp(-gate[c]));
          }
        } else {
          for (double& value : inner) value = std::max(value, 0.0);
        }
        const Vector out = Linear(block, &BlockLevel::w2, inner);
        for (size_t c = 0; c < out.size(); ++c) x[t][c] += out[c];
      }
    }
    if (!view_.architecture.final_norm) return x.back();
    return Norm(x.back(), [&](size_t l) { return view_.final_norm[l]; });
  }

 private:
  // [D] of what value(level, column within the level, width of the level) says.
  template <typename Value>
  Vector PerLevel(Value&& value) const {
    Vector result;
    for (int level = 0; level < view_.sizes.levels(); ++level) {
      const size_t width = static_cast<size_t>(view_.sizes.width(level));
      for (size_t c = 0; c < width; ++c) result.push_back(value(level, c, width));
    }
    return result;
  }

  template <typename Weights>
  Vector Norm(const Vector& x, Weights&& weights) const {
    return PerLevel([&](int level, size_t c, size_t width) {
      const size_t begin = static_cast<size_t>(view_.sizes.begin(level));
      double mean = 0;
      for (size_t i = 0; i < width; ++i) mean += x[begin + i] / static_cast<double>(width);
      double variance = 0;
      for (size_t i = 0; i < width; ++i) {
        variance += std::pow(x[begin + i] - mean, 2) / static_cast<double>(width);
      }
      const NormLevel level_weights = weights(static_cast<size_t>(level));
      return (x[begin + c] - mean) / std::sqrt(variance + 1e-5) * level_weights.scale[c] +
             level_weights.shift[c];
    });
  }

  // `layer` finds a LinearLevel in a BlockLevel.
  template <typename Layer>
  Vector Linear(const std::vector<BlockLevel>& block, Layer&& layer, const Vector& x) const {
    return PerLevel([&](int level, size_t c, size_t) {
      const LinearLevel& weights = std::invoke(layer, block[static_cast<size_t>(level)]);
      const size_t columns = static_cast<size_t>(view_.sizes.end(level));
      double sum = weights.bias.empty() ? 0.0 : weights.bias[c];
      for (size_t i = 0; i < columns; ++i) sum += weights.weight[c * columns + i] * x[i];
      return sum;
    });
  }

  std::vector<Vector> Mix(const std::vector<BlockLevel>& block,
                          const std::vector<Vector>& n) const {
    switch (view_.architecture.mixer) {
      case Mixer::kLru:
        return Lru(block, n);
      case Mixer::kGru:
        return Gru(block, n);
      case Mixer::kAttention:
        return Attention(block, n);
    }
    return {};
  }

  std::vector<Vector> Lru(const std::vector<BlockLevel>& block,
                          const std::vector<Vector>& n) const {
    std::vector<std::complex<double>> h(static_cast<size_t>(dim_));
    std::vector<Vector> outputs;
    for (const Vector& row : n) {
      const Vector re = Linear(
          block, [](const BlockLevel& l) { return l.lru.b_re; }, row);
      const Vector im = Linear(
          block, [](const BlockLevel& l) { return l.lru.b_im; }, row);
      Vector h_re;
      Vector h_im;
      PerLevel([&](int level, size_t c, size_t) {
        const LruLevel& lru = block[static_cast<size_t>(level)].lru;
        const size_t at = static_cast<size_t>(view_.sizes.begin(level)) + c;
        const std::complex<double> lambda =
            std::exp(std::complex<double>(-std::exp(lru.nu_log[c]), std::exp(lru.theta_log[c])));
        h[at] = lambda * h[at] + std::exp(static_cast<double>(lru.gamma_log[c])) *
                                     std::complex<double>(re[at], im[at]);
        h_re.push_back(h[at].real());
        h_im.push_back(h[at].imag());
        return 0.0;
      });
      Vector y = Linear(
          block, [](const BlockLevel& l) { return l.lru.c_re; }, h_re);
      const Vector minus = Linear(
          block, [](const BlockLevel& l) { return l.lru.c_im; }, h_im);
      for (size_t c = 0; c < y.size(); ++c) y[c] -= minus[c];
      outputs.push_back(y);
    }
    return outputs;
  }

  std::vector<Vector> Gru(const std::vector<BlockLevel>& block,
                          const std::vector<Vector>& n) const {
    Vector h(static_cast<size_t>(dim_));
    std::vector<Vector> outputs;
    for (const Vector& row : n) {
      const Vector xr = Linear(
          block, [](const BlockLevel& l) { return l.gru.wr; }, row);
      const Vector xu = Linear(
          block, [](const BlockLevel& l) { return l.gru.wu; }, row);
      const Vector xc = Linear(
          block, [](const BlockLevel& l) { return l.gru.wc; }, row);
      const Vector hr = Linear(
          block, [](const BlockLevel& l) { return l.gru.ur; }, h);
      const Vector hu = Linear(
          block, [](const BlockLevel& l) { return l.gru.uu; }, h);
      const Vector hc = Linear(
          block, [](const BlockLevel& l) { return l.gru.uc; }, h);
      for (size_t c = 0; c < h.size(); ++c) {
        const double r = 1 / (1 + std::exp(-xr[c] - hr[c]));
        const double u = 1 / (1 + std::exp(-xu[c] - hu[c]));
        h[c] = (1 - u) * std::tanh(xc[c] + r * hc[c]) + u * h[c];
      }
      outputs.push_back(Linear(
          block, [](const BlockLevel& l) { return l.gru.o; }, h));
    }
    return outputs;
  }

  std::vector<Vector> Attention(const std::vector<BlockLevel>& block,
                                const std::vector<Vector>& n) const {
    std::vector<Vector> q;
    std::vector<Vector> k;
    std::vector<Vector> v;
    for (const Vector& row : n) {
      q.push_back(Linear(
          block, [](const BlockLevel& l) { return l.attention.q; }, row));
      k.push_back(Linear(
          block, [](const BlockLevel& l) { return l.attention.k; }, row));
      v.push_back(Linear(
          block, [](const BlockLevel& l) { return l.attention.v; }, row));
    }
    std::vector<Vector> outputs;
    for (size_t t = 0; t < n.size(); ++t) {
      const Vector attended = PerLevel([&](int level, size_t c, size_t width) {
        const size_t head =
            static_cast<size_t>(HeadWidth(static_cast<int>(width), view_.architecture.head_width));
        const size_t first = static_cast<size_t>(view_.sizes.begin(level)) + c / head * head;
        double total = 0;
        double sum = 0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (size_t i = first; i < first + head; ++i) score += q[t][i] * k[s][i];
          const double share = std::exp(score / std::sqrt(static_cast<double>(head)));
          total += share;
          sum += share * v[s][static_cast<size_t>(view_.sizes.begin(level)) + c];
        }
        return sum / total;
      });
      outputs.push_back(Linear(
          block, [](const BlockLevel& l) { return l.attention.o; }, attended));
    }
    return outputs;
  }

  const ModelView& view_;
  int dim_;
};

struct Case {
  Architecture architecture;
  int blocks;
};

class EncoderTest : public testing::TestWithParam<Case> {
 protected:
  EncoderTest()
      : model_({.sizes = {4, 8, 24, 40},
                .blocks = GetParam().blocks,
                .items = 30,
                .architecture = GetParam().architecture}),
        encoder_(*Encoder::Create(model_.view(), nullptr)) {}

  // [histories, dim of `levels`]
  std::vector<float> Encode(const std::vector<std::vector<int32_t>>& histories, int levels) const {
    const std::vector<History> spans(histories.begin(), histories.end());
    std::vector<float> z(histories.size() *
                         static_cast<size_t>(model_.view().sizes.end(levels - 1)));
    EXPECT_TRUE(encoder_->Encode(spans, levels, z).ok());
    return z;
  }

  static bool Never(size_t /*row*/, int /*finished*/) { return false; }

  // Lengths in no order, one beyond max_len (10), two equal ones, and none at all.
  const std::vector<std::vector<int32_t>> histories_ = {
      {3, 9, 9, 20}, {5}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, {}, {7, 7}, {30, 1, 17, 2}};
  RandomModel model_;
  std::unique_ptr<const Encoder> encoder_;
};

TEST_P(EncoderTest, EqualsTheDefinitionAtEverySize) {
  const Oracle oracle(model_.view());
  for (int levels = 1; levels <= 4; ++levels) {
    const size_t dim = static_cast<size_t>(model_.view().sizes.end(levels - 1));
    const std::vector<float> z = Encode(histories_, levels);
    for (size_t h = 0; h < histories_.size(); ++h) {
      const Vector expected = oracle.Encode(histories_[h]);
      double largest = 0;
      for (const double value : expected) largest = std::max(largest, std::abs(value));
      for (size_t c = 0; c < dim; ++c) {
        ASSERT_NEAR(z[h * dim + c], expected[c], 1e-5 * largest) << "history " << h << ", " << c;
      }
    }
  }
}

TEST_P(EncoderTest, ANarrowResultIsTheWideOnesPrefixBitForBit) {
  const std::vector<float> wide = Encode(histories_, 4);
  for (int levels = 1; levels < 4; ++levels) {
    const size_t dim = static_cast<size_t>(model_.view().sizes.end(levels - 1));
    const std::vector<float> narrow = Encode(histories_, levels);
    for (size_t h = 0; h < histories_.size(); ++h) {
      for (size_t c = 0; c < dim; ++c) ASSERT_EQ(narrow[h * dim + c], wide[h * 40 + c]);
    }
  }
}

TEST_P(EncoderTest, HistoriesTogetherGiveWhatEachGivesAloneBitForBit) {
  const std::vector<float> together = Encode(histories_, 4);
  for (size_t h = 0; h < histories_.size(); ++h) {
    const std::vector<float> alone = Encode({histories_[h]}, 4);
    for (size_t c = 0; c < 40; ++c) ASSERT_EQ(alone[c], together[h * 40 + c]) << h << ", " << c;
  }
}

TEST_P(EncoderTest, ATableOfInputsChangesNoBit) {
  constexpr int kItems = 1100;  // more than are computed at a time
  const RandomModel model({.sizes = {4, 8, 24, 40},
                           .blocks = GetParam().blocks,
                           .items = kItems,
                           .architecture = GetParam().architecture});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  Random random(23);
  std::vector<std::vector<int32_t>> histories = {{}, {1}, {kItems}};
  for (int h = 0; h < 150; ++h) {
    std::vector<int32_t>& history = histories.emplace_back();
    for (int64_t i = random.Index(14); i >= 0; --i) {
      history.push_back(static_cast<int32_t>(1 + random.Index(kItems)));
    }
  }
  const std::vector<History> spans(histories.begin(), histories.end());
  for (const int made : {4, 2}) {
    const auto table = InputTable::Make(model.view(), made, int64_t{1} << 30);
    ASSERT_EQ(table == nullptr, GetParam().architecture.mixer == Mixer::kAttention);
    if (table == nullptr) return;
    for (const int levels : {1, 2, 4}) {  // of a table that is too narrow, nothing is used
      std::vector<float> plain(histories.size() *
                               static_cast<size_t>(model.view().sizes.end(levels - 1)));
      std::vector<float> with_table = plain;
      ASSERT_TRUE(encoder->Encode(spans, levels, plain).ok());
      ASSERT_TRUE(encoder->Encode(spans, levels, with_table, nullptr, table.get()).ok());
      EXPECT_EQ(with_table, plain);
    }
  }
}

TEST_P(EncoderTest, ATableOfInputsIsNotMadeWhereItWouldBeTooLarge) {
  const size_t gates = InputLayers(model_.view(), model_.view().blocks[0][0]).size();
  const int64_t bytes = static_cast<int64_t>(31 * 40 * gates * sizeof(float));
  EXPECT_EQ(InputTable::Make(model_.view(), 4, bytes) == nullptr, gates == 0);
  EXPECT_EQ(InputTable::Make(model_.view(), 4, bytes - 1), nullptr);
}

TEST_P(EncoderTest, RowsOfOneCallMayHaveTheirOwnWidthsAndDoNotNoticeEachOther) {
  Random random(17);
  for (int round = 0; round < 10; ++round) {
    std::vector<std::vector<int32_t>> histories;
    for (int64_t count = 1 + random.Index(60); count > 0; --count) {
      histories.push_back(histories_[static_cast<size_t>(random.Index(6))]);
    }
    std::vector<std::vector<float>> z;
    std::vector<EncodeRow> rows;
    for (const std::vector<int32_t>& history : histories) {
      const int levels = static_cast<int>(1 + random.Index(4));
      z.emplace_back(static_cast<size_t>(model_.view().sizes.end(levels - 1)));
      rows.push_back({.history = history, .levels = levels});
    }
    for (size_t i = 0; i < rows.size(); ++i) rows[i].z = z[i];
    ASSERT_TRUE(encoder_->Encode(rows, Never).ok());
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(rows[i].finished, rows[i].levels);
      ASSERT_EQ(z[i], Encode({histories[i]}, rows[i].levels)) << "row " << i << ", round " << round;
    }
  }
}

TEST_P(EncoderTest, GoesOnLevelByLevelUntilItIsTold) {
  for (int levels = 1; levels <= 4; ++levels) {
    for (int stop = levels; stop <= 4; ++stop) {
      std::vector<float> z(40, -7.0f);
      std::vector<EncodeRow> row = {
          {.history = histories_[0], .levels = levels, .most_levels = 4, .z = z}};
      std::vector<int> asked;
      ASSERT_TRUE(encoder_
                      ->Encode(row,
                               [&](size_t which, int finished) {
                                 EXPECT_EQ(which, 0u);
                                 asked.push_back(finished);
                                 return finished < stop;
                               })
                      .ok());
      std::vector<int> expected;
      for (int level = levels; level <= std::min(stop, 3); ++level) expected.push_back(level);
      EXPECT_EQ(asked, expected);
      ASSERT_EQ(row[0].finished, stop);
      const auto dim = static_cast<size_t>(model_.view().sizes.end(stop - 1));
      EXPECT_EQ(std::vector<float>(z.begin(), z.begin() + static_cast<int64_t>(dim)),
                Encode({histories_[0]}, stop));
      for (size_t c = dim; c < 40; ++c) ASSERT_EQ(z[c], -7.0f);
    }
  }
}

TEST_P(EncoderTest, RowsThatMayEndDoNotHoldBackThoseThatMust) {
  std::vector<std::vector<float>> z(4, std::vector<float>(40));
  // Sure of 1, 4, 2 and 2 levels; the first goes on with the third, which stops first.
  std::vector<EncodeRow> rows = {
      {.history = histories_[0], .levels = 1, .most_levels = 4, .z = z[0]},
      {.history = histories_[2], .levels = 4, .z = z[1]},
      {.history = histories_[3], .levels = 2, .most_levels = 4, .z = z[2]},
      {.history = histories_[4], .levels = 2, .most_levels = 2, .z = std::span(z[3]).first(8)}};
  std::vector<std::pair<size_t, int>> asked;
  ASSERT_TRUE(encoder_
                  ->Encode(rows,
                           [&](size_t which, int finished) {
                             asked.emplace_back(which, finished);
                             return finished < 3;
                           })
                  .ok());
  EXPECT_EQ(rows[1].finished, 4);
  EXPECT_EQ(rows[2].finished, 3);
  EXPECT_EQ(rows[3].finished, 2);
  // It stands behind a row of two levels that ends there.
  EXPECT_EQ(rows[0].finished, 2);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<int32_t> history(rows[i].history.begin(), rows[i].history.end());
    const std::vector<float> alone = Encode({history}, rows[i].finished);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), z[i].begin())) << i;
  }
}

TEST_P(EncoderTest, NamesWhatIsWrongWithARow) {
  std::vector<float> z(40);
  const std::vector<int32_t> unknown = {31};
  const auto encode = [&](const EncodeRow& row) {
    std::vector<EncodeRow> rows = {row};
    return std::string(encoder_->Encode(rows, Never).message());
  };
  EXPECT_THAT(encode({.history = {}, .levels = 0, .z = z}), HasSubstr("levels: 0 is outside 1..4"));
  EXPECT_THAT(encode({.history = {}, .levels = 1, .most_levels = 5, .z = z}),
              HasSubstr("most_levels: 5 is outside 1..4"));
  EXPECT_THAT(encode({.history = {}, .levels = 3, .most_levels = 2, .z = z}),
              HasSubstr("most_levels: 2 is less than levels, 3"));
  EXPECT_THAT(encode({.history = {}, .levels = 3, .z = z}),
              HasSubstr("room for 40 floats, but 24 are needed"));
  EXPECT_THAT(encode({.history = unknown, .levels = 4, .z = z}),
              HasSubstr("item number 31 is outside 1..30"));
  EXPECT_TRUE(encoder_->Encode(std::span<EncodeRow>(), Never).ok());
}

TEST_P(EncoderTest, OnlyARecurrenceHasAStepOfConstantTime) {
  EXPECT_EQ(encoder_->constant_time_step(), GetParam().architecture.mixer != Mixer::kAttention);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int blocks : {1, 2, 3}) {
    for (const Mixer mixer : {Mixer::kLru, Mixer::kGru, Mixer::kAttention}) {
      cases.push_back({{.mixer = mixer, .head_width = 8}, blocks});
    }
  }
  cases.push_back({{.mixer = Mixer::kAttention,
                    .head_width = 5,
                    .feed_forward = FeedForward::kRelu,
                    .final_norm = true,
                    .input_scale = 6.0f},
                   2});
  cases.push_back({{.mixer = Mixer::kLru, .final_norm = true, .input_scale = 0.5f}, 1});
  cases.push_back({{.mixer = Mixer::kGru, .feed_forward = FeedForward::kRelu}, 2});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Architectures, EncoderTest, testing::ValuesIn(Cases()));

}  // namespace
}  // namespace nestrec

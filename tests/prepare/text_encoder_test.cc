#include "model/prepare/text_encoder.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/prepare/text_tokenizer.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

std::vector<std::string> MakeTexts(int64_t count) {
  constexpr const char* kWords[] = {"soap",  "red",  "nail", "polish", "hair",  "oil",
                                    "cream", "aloe", "rose", "12.5",   "brush", "set"};
  Random random(9);
  std::vector<std::string> texts;
  for (int64_t i = 0; i < count; ++i) {
    std::string text;
    for (int64_t n = random.Index(8); n > 0; --n) {
      text += kWords[random.Index(12)];
      text += random.Index(4) == 0 ? "\n" : " ";
    }
    texts.push_back(text);
  }
  texts.push_back("unseen words only");
  texts.push_back("");
  return texts;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Writes all tensors and metadata of an encoder's file under a prefix, as a checkpoint does.
void CopyUnderPrefix(const std::string& from, const std::string& to, const std::string& prefix) {
  const auto file = SafetensorsFile::Open(from, true);
  ASSERT_TRUE(file.ok()) << file.status();
  SafetensorsWriter writer;
  const std::vector<float> other = {1, 2, 3};
  writer.Add("model.weight", {3}, std::span<const float>(other));
  for (const TensorInfo& tensor : (*file)->tensors()) {
    if (tensor.dtype == DType::kF32) {
      writer.Add(prefix + tensor.name, tensor.shape, *(*file)->Floats(tensor.name, tensor.shape));
    } else {
      writer.Add(prefix + tensor.name, tensor.shape, *(*file)->Int64s(tensor.name, tensor.shape));
    }
  }
  for (const auto& [key, value] : (*file)->metadata()) writer.SetMetadata(prefix + key, value);
  ASSERT_TRUE(writer.Write(to).ok());
}

TEST(ItemText, IsOneLinePerFieldInOrder) {
  const std::string record =
      R"({"categories":[["A","B"]],"title":"T\n1","price":9.50,"brand":null})";
  EXPECT_EQ(ItemText(record, std::vector<std::string>{"title", "price", "brand", "categories"}),
            "T 1\n9.50\nA, B");
  EXPECT_EQ(ItemText(record, std::vector<std::string>{"brand", "absent"}), "");
}

TEST(TextEncoder, EncodesUnitVectorsAndZerosForUnknownText) {
  const std::vector<std::string> texts = MakeTexts(200);
  const auto fitted = TextEncoder::Fit(texts, {.width = 16});
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  int zeros = 0;
  for (const std::string& text : texts) {
    const std::vector<float> vector = fitted->encoder.Encode(text);
    ASSERT_EQ(vector.size(), 16u);
    double square = 0;
    for (const float x : vector) square += static_cast<double>(x) * x;
    if (square == 0) {
      ++zeros;
    } else {
      EXPECT_NEAR(square, 1, 1e-5);
    }
  }
  EXPECT_GE(zeros, 2);
  EXPECT_THAT(fitted->encoder.Encode("zzz qqq"), Each(0.0F));
  EXPECT_THAT(fitted->encoder.Encode(""), Each(0.0F));
}

// The maths by the book: dense TF-IDF rows; with as many columns as terms the projection is a
// rotation, so cosines of the vectors are cosines of the rows.
TEST(TextEncoder, KeepsTheCosinesOfTfIdf) {
  const std::vector<std::string> texts = MakeTexts(60);
  const auto fitted = TextEncoder::Fit(texts, {.width = 300});
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  EXPECT_NEAR(fitted->report.explained_variance, 1, 1e-4);
  std::map<uint64_t, std::set<size_t>> items_with;
  std::vector<std::map<uint64_t, int>> counts(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    for (const uint64_t term : TermHashes(texts[i])) {
      ++counts[i][term];
      items_with[term].insert(i);
    }
  }
  const auto row = [&](size_t i) {
    std::map<uint64_t, double> weights;
    double square = 0;
    for (const auto& [term, count] : counts[i]) {
      if (items_with[term].size() < 2) continue;
      const double n = static_cast<double>(texts.size());
      const double idf = std::log((1 + n) / (1 + static_cast<double>(items_with[term].size()))) + 1;
      weights[term] = (1 + std::log(count)) * idf;
      square += weights[term] * weights[term];
    }
    for (auto& [term, weight] : weights) weight /= std::sqrt(square);
    return weights;
  };
  for (size_t a = 0; a < texts.size(); a += 7) {
    for (size_t b = 0; b < texts.size(); b += 5) {
      const auto row_a = row(a), row_b = row(b);
      double expected = 0;
      for (const auto& [term, weight] : row_a)
        expected += row_b.contains(term) ? weight * row_b.at(term) : 0;
      const std::vector<float> va = fitted->encoder.Encode(texts[a]),
                               vb = fitted->encoder.Encode(texts[b]);
      double cosine = 0;
      for (size_t i = 0; i < va.size(); ++i) cosine += static_cast<double>(va[i]) * vb[i];
      EXPECT_NEAR(cosine, expected, 2e-4) << texts[a] << " / " << texts[b];
    }
  }
}

TEST(TextEncoder, KeepsTheMostFrequentTerms) {
  const std::vector<std::string> texts = {"a", "a", "a", "b", "b", "c"};
  const auto all = TextEncoder::Fit(texts, {.width = 2, .min_items = 1});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->report.terms, 3);
  const auto two = TextEncoder::Fit(texts, {.width = 2});
  EXPECT_EQ(two->report.terms, 2);
  EXPECT_EQ(two->report.distinct_terms, 3);
  const auto one = TextEncoder::Fit(texts, {.width = 2, .max_terms = 1});
  EXPECT_EQ(one->report.terms, 1);
  EXPECT_EQ(one->report.rank, 1);
  EXPECT_THAT(one->encoder.Encode("b"), Each(0.0F));
  EXPECT_NEAR(std::abs(one->encoder.Encode("a")[0]), 1, 1e-6);
}

TEST(TextEncoder, EncodesTheSameBitsAfterSavingAndInsideACheckpoint) {
  const TempFolder folder;
  const std::vector<std::string> texts = MakeTexts(300);
  const auto fitted = TextEncoder::Fit(texts, {.fields = {"title", "crème"}, .width = 24});
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  ASSERT_TRUE(fitted->encoder.Save(folder.File("own")).ok());
  CopyUnderPrefix(folder.File("own"), folder.File("checkpoint"), "text_encoder.");
  for (const auto& [name, prefix] :
       {std::pair("own", ""), std::pair("checkpoint", "text_encoder.")}) {
    const auto file = SafetensorsFile::Open(folder.File(name), true);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto loaded = TextEncoder::Load(**file, prefix);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->fields(), fitted->encoder.fields());
    EXPECT_EQ(loaded->width(), 24);
    for (const std::string& text : texts) {
      ASSERT_TRUE(SameBits(loaded->Encode(text), fitted->encoder.Encode(text))) << text;
    }
    EXPECT_EQ(TextEncoder::Load(**file, "other.").status().code(), absl::StatusCode::kNotFound);
  }
}

TEST(TextEncoder, RefusesUnusableOptionsAndTexts) {
  const std::vector<std::string> texts = {"a b", "a"};
  EXPECT_EQ(TextEncoder::Fit(texts, {.width = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TextEncoder::Fit(texts, {.width = 100000}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TextEncoder::Fit(texts, {.max_terms = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TextEncoder::Fit(texts, {.power_iterations = -1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<std::string> nothing_shared = {"a", "b"};
  const auto fitted = TextEncoder::Fit(nothing_shared, {});
  EXPECT_EQ(fitted.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(fitted.status().message()), HasSubstr("--no-text"));
  EXPECT_EQ(TextEncoder::Fit({}, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(TextEncoder, RefusesInconsistentFiles) {
  const TempFolder folder;
  const auto write = [&folder](std::vector<int64_t> terms, std::vector<float> idf,
                               std::vector<float> projection, const std::string& tokenizer,
                               const std::string& fields) {
    SafetensorsWriter writer;
    const int64_t n = static_cast<int64_t>(terms.size());
    writer.Add("terms", {n}, std::span<const int64_t>(terms));
    writer.Add("idf", {static_cast<int64_t>(idf.size())}, std::span<const float>(idf));
    writer.Add("projection", {n, static_cast<int64_t>(projection.size()) / n},
               std::span<const float>(projection));
    writer.SetMetadata("tokenizer", tokenizer);
    writer.SetMetadata("fields", fields);
    writer.SetMetadata("items", "2");
    EXPECT_TRUE(writer.Write(folder.File("f")).ok());
    return TextEncoder::Load(**SafetensorsFile::Open(folder.File("f"), true), "").status();
  };
  const std::string fields = R"(["title"])";
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(write({-1, 5}, {1, 2}, {1, 2, 3, 4}, kTokenizerVersion, fields).ok());
  EXPECT_EQ(write({1, 5}, {1, 2}, {1, 2}, "other", fields).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(write({5, 5}, {1, 2}, {1, 2}, kTokenizerVersion, fields).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1}, {1, 2}, kTokenizerVersion, fields).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1, nan}, {1, 2}, kTokenizerVersion, fields).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1, -2}, {1, 2}, kTokenizerVersion, fields).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1, 2}, {1, nan}, kTokenizerVersion, fields).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1, 2}, {1, 2}, kTokenizerVersion, "nonsense").code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(write({1, 5}, {1, 2}, {1, 2}, kTokenizerVersion, "[1]").code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace nestrec

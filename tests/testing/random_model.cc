#include "tests/testing/random_model.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "model/model_view.h"

namespace nestrec {
namespace {

NestedSizes SizesOf(const RandomModelOptions& options) {
  return NestedSizes::Create(options.sizes).value();
}

ModelInfo InfoOf(const RandomModelOptions& options) {
  ModelInfo info;
  info.name = "random";
  info.max_len = options.max_len;
  info.items = options.items;
  if (options.feature_width > 0) {
    info.modalities = {{.name = "text", .width = options.feature_width, .scaling = "none"}};
  }
  info.recipe_json = "{}";
  info.dataset_fingerprint = "0000000000000000";
  info.created = "2025-01-31T12:00:00Z";
  info.program_version = std::string(kVersion);
  if (options.with_metrics) {
    for (const int dim : options.sizes) {
      SizeMetrics metrics{.dim = dim, .metrics = {.users = 100}};
      metrics.metrics.recall.fill(dim / 1000.0);
      metrics.metrics.ndcg.fill(dim / 2000.0);
      metrics.metrics.mrr.fill(dim / 3000.0);
      info.validation.push_back(metrics);
      info.test.push_back(metrics);
    }
  }
  return info;
}

Catalogue CatalogueOf(const RandomModelOptions& options) {
  std::vector<std::string> ids;
  std::vector<std::string> records;
  for (int64_t item = 1; item <= options.items; ++item) {
    ids.push_back(RandomModelItemId(item));
    records.push_back(
        absl::StrCat(R"({"item_id": ")", ids.back(), R"(", )",
                     item == 5 ? "" : absl::StrCat(R"("title": "Title )", item, R"(", )"),
                     R"("brand": "Brand )", item % 5, R"(", "price": )", item, ".50}"));
  }
  return Catalogue::Create(ids, records).value();
}

// A tensor's value of the kind that its name says.
float Draw(const std::string& name, const std::vector<int64_t>& shape, Random& random) {
  if (absl::StrContains(name, "nu_log")) {  // |lambda| in [0.1, 0.95]
    return static_cast<float>(std::log(-std::log(random.Uniform(0.1, 0.95))));
  }
  if (absl::StrContains(name, "theta_log")) {
    return static_cast<float>(std::log(random.Uniform(0.01, 2 * M_PI)));
  }
  if (absl::StrContains(name, "gamma_log")) {
    return static_cast<float>(std::log(random.Uniform(0.3, 1.0)));
  }
  if (absl::StrContains(name, ".scale.")) {
    return static_cast<float>(random.Uniform(0.8, 1.2));
  }
  if (absl::StartsWith(name, "items.")) {
    return static_cast<float>(random.Normal());
  }
  const double range = shape.size() == 2 ? 1.0 / std::sqrt(static_cast<double>(shape[1])) : 0.1;
  return static_cast<float>(random.Uniform(-range, range));
}

}  // namespace

std::string RandomModelItemId(int64_t item) {
  return item == 2 ? "item 2 with spaces" : item == 3 ? "品目-3" : absl::StrCat("item-", item);
}

RandomModel::RandomModel(const RandomModelOptions& options)
    : view_(EmptyView(SizesOf(options), options.blocks, options.items + 1, options.max_len,
                      options.architecture)),
      info_(InfoOf(options)),
      catalogue_(CatalogueOf(options)) {
  Random random(options.seed);
  for (int level = 0; level < view_.sizes.levels(); ++level) {
    const absl::Status status =
        VisitLevel(view_, options.feature_width, level,
                   [&](const std::string& name, const std::vector<int64_t>& shape,
                       std::span<const float>& span) {
                     size_t count = 1;
                     for (const int64_t length : shape) {
                       count *= static_cast<size_t>(length);
                     }
                     std::vector<float>& tensor = tensors_.emplace_back(count);
                     for (float& value : tensor) {
                       value = Draw(name, shape, random);
                     }
                     span = tensor;
                     return absl::OkStatus();
                   });
    static_cast<void>(status);  // the visitor does not fail
  }
}

absl::Status RandomModel::Write(const std::string& path) const {
  return WriteCheckpoint(path, view_, info_, catalogue_, /*text_encoder=*/nullptr).status();
}

}  // namespace nestrec

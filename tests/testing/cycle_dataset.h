// A data set that can be learnt in seconds: every user walks through the items in one fixed cyclic
// order, so the next item follows from the last, and all items are equally popular.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "model/dataset.h"

namespace nestrec {

inline std::shared_ptr<Dataset> MakeCycleDataset(int users = 200, int items = 30, int events = 8,
                                                 int feature_width = 12) {
  auto dataset = std::make_shared<Dataset>();
  Random random(11);
  dataset->offsets.push_back(0);
  for (int user = 0; user < users; ++user) {
    dataset->user_ids.push_back(absl::StrCat("u", user));
    const int64_t start = random.Index(items);
    for (int e = 0; e < events; ++e)
      dataset->interactions.push_back(static_cast<int32_t>(1 + (start + e) % items));
    dataset->offsets.push_back(static_cast<int64_t>(dataset->interactions.size()));
  }
  std::vector<std::string> ids, records;
  Matrix features{.rows = items, .columns = feature_width, .values = {}};
  for (int item = 1; item <= items; ++item) {
    ids.push_back(absl::StrCat("item ", item));
    records.push_back(
        absl::StrCat("{\"title\":\"Title ", item, "\",\"brand\":\"Brand ", item % 3, "\"}"));
    for (int c = 0; c < feature_width; ++c)
      features.values.push_back(static_cast<float>(random.Normal()));
  }
  dataset->catalogue = std::make_shared<const Catalogue>(*Catalogue::Create(ids, records));
  dataset->modalities.push_back({"text", std::move(features)});
  dataset->fingerprint = absl::StrCat("cycle-", users, "-", items, "-", events);
  return dataset;
}

}  // namespace nestrec

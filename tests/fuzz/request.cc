#include <google/protobuf/stubs/logging.h>

#include <cstdlib>
#include <vector>

#include "absl/time/time.h"
#include "index/predicate.h"
#include "server/catalogue_attributes.h"
#include "server/session_requests.h"
#include "server/validate.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

struct Shop {
  Catalogue catalogue;
  CatalogueAttributes attributes;
};

// A few items with fields of every kind.
Shop MakeShop() {
  std::vector<std::string> ids, records;
  for (int i = 0; i < 20; ++i) {
    ids.push_back("item-" + std::to_string(i));
    records.push_back(R"({"title":"T )" + std::to_string(i) + R"(","brand":"B)" +
                      std::to_string(i % 3) + R"(","price":)" + std::to_string(i) +
                      R"(.5,"tags":["a","b)" + std::to_string(i % 2) + R"("],"sale":)" +
                      (i % 2 == 0 ? "true" : "false") + "}");
  }
  auto catalogue = Catalogue::Create(ids, records);
  if (!catalogue.ok()) std::abort();
  auto attributes = ReadAttributes(*catalogue, {});
  if (!attributes.ok()) std::abort();
  return {*std::move(catalogue), *std::move(attributes)};
}

const Shop& TheShop() {
  static const Shop* const shop = [] {
    google::protobuf::SetLogHandler(nullptr);  // which would tell of every bad byte
    return new Shop(MakeShop());
  }();
  return *shop;
}

}  // namespace

void FuzzRequest(absl::string_view bytes) {
  if (bytes.empty()) return;
  const bool is_record = (bytes[0] & 1) != 0;
  bytes.remove_prefix(1);
  const Shop& shop = TheShop();
  if (is_record) {
    v1::RecordEventsRequest request;
    if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
    ValidateRecordEvents(request, {}, shop.catalogue, absl::UnixEpoch()).IgnoreError();
    return;
  }
  v1::RecommendRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const auto query = ValidateRecommend(request, {}, shop.catalogue, shop.attributes.table);
  if (!query.ok() || !query->filter.has_value()) return;
  // What is valid can be searched with.
  const auto matching = Matching(*query->filter, shop.attributes.table);
  if (!matching.ok()) std::abort();
}

}  // namespace nestrec

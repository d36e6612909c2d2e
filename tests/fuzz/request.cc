#include <google/protobuf/stubs/logging.h>

#include <cstdlib>
#include <vector>

#include "absl/time/time.h"
#include "index/predicate.h"
#include "server/batch_recommend.h"
#include "server/catalogue_attributes.h"
#include "server/item_requests.h"
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

// What is valid can be searched with.
void Search(const absl::StatusOr<RecommendQuery>& query, const Shop& shop) {
  if (!query.ok() || !query->filter.has_value()) return;
  const auto matching = Matching(*query->filter, shop.attributes.table);
  if (!matching.ok()) std::abort();
}

}  // namespace

void FuzzRequest(absl::string_view bytes) {
  if (bytes.empty()) return;
  const int kind = static_cast<unsigned char>(bytes[0]) % 8;
  bytes.remove_prefix(1);
  const Shop& shop = TheShop();
  static const ItemView* const items = new ItemView(shop.catalogue);
  const auto parses = [&](google::protobuf::Message& request) {
    return request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  };
  if (kind == 1) {
    v1::RecordEventsRequest request;
    if (parses(request)) ValidateRecordEvents(request, {}, *items, absl::UnixEpoch()).IgnoreError();
    return;
  }
  if (kind == 2) {
    v1::UpsertItemsRequest request;
    if (!parses(request)) return;
    const auto upserted = ValidateUpsert(request, {});
    for (size_t i = 0; upserted.ok() && i < upserted->size(); ++i) {
      // What is valid can be read.
      if ((*upserted)[i].record.has_value()) AttributesOf(*(*upserted)[i].record, {});
    }
    return;
  }
  if (kind == 4) {
    v1::BatchRecommendRequest request;
    if (!parses(request) || !CheckBatch(request, {}).ok()) return;
    for (const v1::RecommendRequest& one : request.requests()) {
      Search(ValidateRecommend(one, {}, *items, shop.attributes.table), shop);
    }
    return;
  }
  if (kind == 5) {
    v1::ForgetUserRequest request;
    if (parses(request)) ValidateForgetUser(request, {}).IgnoreError();
    return;
  }
  if (kind == 6) {
    v1::RemoveItemsRequest request;
    if (parses(request)) ValidateRemove(request, {}).IgnoreError();
    return;
  }
  if (kind == 7) {
    v1::EncodeRequest request;
    if (!parses(request)) return;
    const absl::StatusOr<RecommendQuery> query = ValidateEncode(request, {}, *items);
    // What is valid asks for nothing that has to be searched.
    if (query.ok() && (!query->vector_only || query->filter.has_value())) std::abort();
    return;
  }
  if (kind == 3) {
    v1::SimilarItemsRequest request;
    if (!parses(request)) return;
    Search(ValidateSimilarItems(request, {}, *items, shop.attributes.table), shop);
  } else {
    v1::RecommendRequest request;
    if (!parses(request)) return;
    Search(ValidateRecommend(request, {}, *items, shop.attributes.table), shop);
  }
}

}  // namespace nestrec

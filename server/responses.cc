#include "server/responses.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "base/version.h"
#include "model/item_record.h"
#include "model/metrics.h"
#include "server/index_builder.h"
#include "server/proto_time.h"

namespace nestrec {
namespace {

v1::WidthReason ToProto(WidthReason reason) {
  switch (reason) {
    case WidthReason::kExplicit:
      return v1::WIDTH_REASON_EXPLICIT;
    case WidthReason::kTier:
      return v1::WIDTH_REASON_TIER;
    case WidthReason::kDefault:
      return v1::WIDTH_REASON_DEFAULT;
    case WidthReason::kQuality:
      return v1::WIDTH_REASON_QUALITY;
    case WidthReason::kLoad:
      return v1::WIDTH_REASON_LOAD;
    case WidthReason::kBudget:
      return v1::WIDTH_REASON_BUDGET;
    case WidthReason::kDeadline:
      return v1::WIDTH_REASON_DEADLINE;
  }
  return v1::WIDTH_REASON_UNSPECIFIED;
}

void FillMetrics(const std::vector<SizeMetrics>& all, int dim,
                 v1::Metrics* (v1::SizeInfo::*mutable_metrics)(), v1::SizeInfo& size) {
  for (const SizeMetrics& of_size : all) {
    if (of_size.dim != dim) {
      continue;
    }
    v1::Metrics& metrics = *(size.*mutable_metrics)();
    metrics.set_users(of_size.metrics.users);
    for (size_t i = 0; i < kMetricCutoffs.size(); ++i) {
      v1::MetricsAtCutoff& at = *metrics.add_at();
      at.set_k(kMetricCutoffs[i]);
      at.set_recall(of_size.metrics.recall[i]);
      at.set_ndcg(of_size.metrics.ndcg[i]);
      at.set_mrr(of_size.metrics.mrr[i]);
    }
  }
}

void FillCosts(const Snapshot& snapshot, int levels, v1::SizeCosts& costs) {
  constexpr double kUsual = 0.5;
  constexpr double kSure = 0.95;
  const auto fill = [&](Stage stage, int64_t rows, google::protobuf::Duration& usual,
                        google::protobuf::Duration& sure) {
    const CostModel& model = snapshot.costs();
    usual =
        nestrec::ToProto(model.Predict(stage, levels, rows, kUsual).value_or(absl::ZeroDuration()));
    sure =
        nestrec::ToProto(model.Predict(stage, levels, rows, kSure).value_or(absl::ZeroDuration()));
  };
  fill(Stage::kEncode, snapshot.encoder().max_len(), *costs.mutable_encode_p50(),
       *costs.mutable_encode_p95());
  fill(Stage::kSearch, 1, *costs.mutable_search_p50(), *costs.mutable_search_p95());
}

void FillServed(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                const Recommendation& recommendation, absl::Duration queued, v1::Served& served) {
  served.set_dim(width.dim);
  served.set_tier(width.tier);
  served.set_why(ToProto(width.why));
  served.set_exact(recommendation.result.exact);
  served.set_model_version(snapshot.version());
  served.set_session_event_count(query.session.has_value() ? query.session->end : 0);
  v1::StageTimings& timings = *served.mutable_timings();
  *timings.mutable_queue() = nestrec::ToProto(queued);
  *timings.mutable_encode() = nestrec::ToProto(recommendation.encode);
  *timings.mutable_search() = nestrec::ToProto(recommendation.search);
}

template <typename Response>
void FillUnknownHistory(const RecommendQuery& query, Response& response) {
  response.mutable_unknown_item_ids()->Assign(query.unknown_history.ids.begin(),
                                              query.unknown_history.ids.end());
  response.set_unknown_item_count(static_cast<uint32_t>(query.unknown_history.count));
}

// What the responses that return items have in common.
template <typename Response>
void FillItems(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
               const Recommendation& recommendation, absl::Duration queued, Response& response) {
  const ItemView& items = *recommendation.items;
  response.mutable_items()->Reserve(static_cast<int>(recommendation.result.items.size()));
  for (const ScoredItem& found : recommendation.result.items) {
    v1::RecommendedItem& item = *response.add_items();
    item.set_item_id(std::string(items.id(found.item)));
    item.set_score(found.score);
    std::vector<std::string> values = RecordFields(items.record(found.item), query.fields);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!values[i].empty()) {
        (*item.mutable_fields())[query.fields[i]] = std::move(values[i]);
      }
    }
  }
  FillServed(snapshot, query, width, recommendation, queued, *response.mutable_served());
  response.mutable_unknown_exclude_item_ids()->Assign(query.unknown_excluded.ids.begin(),
                                                      query.unknown_excluded.ids.end());
  response.set_unknown_exclude_item_count(static_cast<uint32_t>(query.unknown_excluded.count));
  response.mutable_unknown_only_item_ids()->Assign(query.unknown_only.ids.begin(),
                                                   query.unknown_only.ids.end());
  response.set_unknown_only_item_count(static_cast<uint32_t>(query.unknown_only.count));
}

}  // namespace

void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::RecommendResponse& response) {
  FillItems(snapshot, query, width, recommendation, queued, response);
  FillUnknownHistory(query, response);
  if (!recommendation.explanation.has_value()) return;
  const Explanation& explanation = *recommendation.explanation;
  response.mutable_explained_item_ids()->Assign(explanation.ids.begin(), explanation.ids.end());
  const size_t window = explanation.window.size();
  for (int i = 0; i < response.items_size(); ++i) {
    const auto begin = explanation.contributions.begin() + static_cast<std::ptrdiff_t>(window) * i;
    response.mutable_items(i)->mutable_contributions()->Assign(
        begin, begin + static_cast<std::ptrdiff_t>(window));
  }
  *response.mutable_served()->mutable_timings()->mutable_explain() =
      nestrec::ToProto(recommendation.explain);
}

void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::SimilarItemsResponse& response) {
  FillItems(snapshot, query, width, recommendation, queued, response);
}

void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::EncodeResponse& response) {
  response.mutable_vector()->Assign(recommendation.vector.begin(), recommendation.vector.end());
  FillServed(snapshot, query, width, recommendation, queued, *response.mutable_served());
  FillUnknownHistory(query, response);
  if (query.include_seen) return;
  absl::flat_hash_set<int32_t> listed;
  const auto list = [&](std::span<const int32_t> seen) {
    for (const int32_t item : seen) {
      if (item == 0 || !listed.insert(item).second) continue;
      response.add_seen_item_ids(std::string(recommendation.items->id(item)));
    }
  };
  if (query.session.has_value()) list(query.session->items);
  list(query.history);
}

void FillLiveItems(const ItemView& items, v1::LiveItemCounts& counts) {
  counts.set_added(items.counts().added);
  counts.set_changed(items.counts().changed);
  counts.set_removed(items.counts().removed);
  counts.set_skipped(items.counts().skipped);
  counts.set_bytes(items.counts().bytes);
}

void FillModelInfo(const Snapshot& snapshot, int64_t max_k, v1::GetModelInfoResponse& response) {
  const ModelInfo& info = snapshot.checkpoint().info();
  response.set_model_name(info.name);
  response.set_model_version(snapshot.version());
  response.set_program_version(std::string(kVersion));
  response.set_created(info.created);
  const std::shared_ptr<const ItemView> items = snapshot.items();
  response.set_item_count(items->listed());
  FillLiveItems(*items, *response.mutable_live_items());
  response.set_max_len(info.max_len);
  const Architecture& architecture = snapshot.checkpoint().view().architecture;
  response.set_mixer(std::string(MixerName(architecture.mixer)));
  response.set_constant_time_step(architecture.constant_time_step());
  for (int levels = 1; levels <= snapshot.sizes().levels(); ++levels) {
    const int dim = snapshot.sizes().end(levels - 1);
    v1::SizeInfo& size = *response.add_sizes();
    size.set_dim(dim);
    size.set_model_bytes(static_cast<int64_t>(snapshot.checkpoint().LevelBytes(levels)));
    size.set_index_bytes(snapshot.index_bytes(dim));
    FillCosts(snapshot, levels, *size.mutable_costs());
    FillMetrics(info.validation, dim, &v1::SizeInfo::mutable_validation, size);
    FillMetrics(info.test, dim, &v1::SizeInfo::mutable_test, size);
  }
  for (const Tier& tier : snapshot.tiers().tiers()) {
    v1::TierInfo& added = *response.add_tiers();
    added.set_name(tier.name);
    added.set_dim(tier.dim);
    if (snapshot.searches()) {
      added.set_index(Resolved(tier.index, tier.dim, snapshot.catalogue().size()).factory);
      added.set_exact(snapshot.index(tier.dim, tier.index).exact());
    }
    added.set_min_dim(tier.narrowest());
    added.set_max_k(static_cast<int32_t>(tier.max_k == 0 ? max_k : std::min(tier.max_k, max_k)));
    if (tier.latency_budget != absl::InfiniteDuration()) {
      *added.mutable_latency_budget() = nestrec::ToProto(tier.latency_budget);
    }
  }
  response.set_default_tier(snapshot.tiers().default_tier().name);
}

}  // namespace nestrec

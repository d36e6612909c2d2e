#include "server/serving_metrics.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

// As Go's gRPC writes them, which dashboards and alerts expect.
std::string CodeName(int code) {
  static constexpr std::array<const char*, 17> kNames = {
      "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss", "Unauthenticated"};
  const auto place = static_cast<size_t>(code);
  return place < kNames.size() ? kNames[place] : "Unknown";
}

MetricLabels MethodLabels(const std::pair<absl::string_view, absl::string_view>& method) {
  return {{"grpc_type", "unary"},
          {"grpc_service", std::string(method.first)},
          {"grpc_method", std::string(method.second)}};
}

const Metrics::Buckets& SizeBuckets() {
  static const Metrics::Buckets* const buckets =
      new Metrics::Buckets{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512, 1024};
  return *buckets;
}

// Real time to expected time.
const Metrics::Buckets& RatioBuckets() {
  static const Metrics::Buckets* const buckets =
      new Metrics::Buckets{0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3, 5, 10};
  return *buckets;
}

}  // namespace

ServingMetrics::ServingMetrics(Metrics& metrics)
    : started_([&metrics](const Method& method) {
        return metrics.Counter("grpc_server_started_total", "Calls that arrived.",
                               MethodLabels(method));
      }),
      handled_([&metrics](const MethodCode& key) {
        MetricLabels labels = MethodLabels(key.first);
        labels["grpc_code"] = CodeName(key.second);
        return metrics.Counter("grpc_server_handled_total",
                               "Calls that ended, by their code: OK, ResourceExhausted and so on.",
                               labels);
      }),
      seconds_([&metrics](const Method& method) {
        return metrics.Histogram("grpc_server_handling_seconds",
                                 "From a call's arrival to its answer's being ready.",
                                 MethodLabels(method), Metrics::TimeBuckets());
      }),
      served_([&metrics](const Width& key) {
        return metrics.Counter(
            "nestrec_served_total",
            "Recommendations, and vectors of Encode, by the width that they were served at and "
            "what "
            "decided it: explicit, tier, "
            "default, quality, load, budget, deadline; no tier where the request named the dim.",
            {{"tier", std::get<0>(key)},
             {"dim", absl::StrCat(std::get<1>(key))},
             {"why", std::string(WidthReasonName(std::get<2>(key)))}});
      }),
      queue_seconds_([&metrics](const std::string& tier) {
        return metrics.Histogram("nestrec_queue_seconds",
                                 "How long requests that were served waited for a worker.",
                                 {{"tier", tier}}, Metrics::TimeBuckets());
      }),
      encode_seconds_(metrics.Histogram("nestrec_stage_seconds",
                                        "Time by stage: encode of a batch, search of a request.",
                                        {{"stage", "encode"}}, Metrics::TimeBuckets())),
      search_seconds_(metrics.Histogram("nestrec_stage_seconds",
                                        "Time by stage: encode of a batch, search of a request.",
                                        {{"stage", "search"}}, Metrics::TimeBuckets())),
      batch_requests_(
          metrics.Histogram("nestrec_batch_requests", "Requests of a batch.", {}, SizeBuckets())),
      batch_items_(metrics.Histogram(
          "nestrec_batch_items",
          "Items of a batch's histories that were encoded, at least one each.", {}, SizeBuckets())),
      batch_seconds_(metrics.Histogram("nestrec_batch_seconds", "A worker's time for a batch.", {},
                                       Metrics::TimeBuckets())),
      cost_ratio_(metrics.Histogram("nestrec_cost_ratio",
                                    "A batch's time by what the cost model expected it to stay "
                                    "within in 19 of 20 cases: mostly "
                                    "below 1.",
                                    {}, RatioBuckets())) {}

void ServingMetrics::Arrived(CallInfo& call) { started_.At({call.service, call.method}).Add(); }

void ServingMetrics::End(const CallInfo& call, const absl::Status& status, absl::Duration took) {
  const Method method(call.service, call.method);
  handled_.At({method, static_cast<int>(status.code())}).Add();
  seconds_.At(method).Observe(absl::ToDoubleSeconds(took));
}

void ServingMetrics::Served(const RecommendCall& call, const RecommendCall::Answered& answered) {
  const WidthDecision& width = answered.width;
  served_.At({width.tier, width.dim, width.why}).Add();
  // A request that names its width waits with the default tier's.
  const std::string& tier =
      width.tier.empty() ? call.snapshot->tiers().default_tier().name : width.tier;
  queue_seconds_.At(tier).Observe(absl::ToDoubleSeconds(answered.queued));
  if (!call.query.vector_only) {
    search_seconds_.Observe(absl::ToDoubleSeconds(answered.recommendation.search));
  }
}

void ServingMetrics::Ran(const Batch& batch) {
  batch_requests_.Observe(static_cast<double>(batch.requests));
  batch_items_.Observe(static_cast<double>(batch.rows));
  batch_seconds_.Observe(absl::ToDoubleSeconds(batch.took));
  encode_seconds_.Observe(absl::ToDoubleSeconds(batch.encode));
  if (batch.expected > absl::ZeroDuration()) {
    cost_ratio_.Observe(absl::FDivDuration(batch.took, batch.expected));
  }
}

}  // namespace nestrec

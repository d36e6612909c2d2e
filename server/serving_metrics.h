// What the server counts as it serves. docs/operations.md lists the names.
//
// Calls: grpc_server_started_total, grpc_server_handled_total and grpc_server_handling_seconds,
// with the labels that gRPC's middlewares for Prometheus use. Requests and batches: nestrec_*.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/metrics.h"
#include "server/recommend_engine.h"
#include "server/unary_call.h"

namespace nestrec {

class ServingMetrics final : public CallHook, public EngineObserver {
 public:
  // `metrics` outlives this object. Services' and methods' names must live as long.
  explicit ServingMetrics(Metrics& metrics);

  void Arrived(CallInfo& call) override;
  void End(const CallInfo& call, const absl::Status& status, absl::Duration took) override;
  void Served(const RecommendCall& call, const RecommendCall::Answered& answered) override;
  void Ran(const Batch& batch) override;

 private:
  using Method = std::pair<absl::string_view, absl::string_view>;  // service, name
  using MethodCode = std::pair<Method, int>;                       // canonical code
  using Width = std::tuple<std::string, int, WidthReason>;         // tier, dim, why

  MetricMap<Method, MetricCounter> started_;
  MetricMap<MethodCode, MetricCounter> handled_;
  MetricMap<Method, MetricHistogram> seconds_;
  MetricMap<Width, MetricCounter> served_;
  MetricMap<std::string, MetricHistogram> queue_seconds_;
  const MetricHistogram encode_seconds_, search_seconds_;
  const MetricHistogram batch_requests_, batch_items_, batch_seconds_, cost_ratio_;
};

}  // namespace nestrec

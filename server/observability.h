// What a server shows of itself, as its options ask for it: one object that hands out the listeners
// of calls and of the engine, so that the server itself knows none of them.
//
// Thread safety: Watch and Stop once each, from one thread.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "server/call_log.h"
#include "server/metrics.h"
#include "server/observability_options.h"
#include "server/quality_monitor.h"
#include "server/recommend_engine.h"
#include "server/serving_collectors.h"
#include "server/serving_metrics.h"
#include "server/unary_call.h"

namespace nestrec {

class Observability {
 public:
  Observability(const ObservabilityOptions& options, const Clock& clock);

  // In the order in which calls are to pass them.
  const std::vector<CallHook*>& hooks() const { return hooks_; }
  const std::vector<EngineObserver*>& observers() const { return observers_; }

  // From here on metrics tell of the parts, which live until Stop.
  void Watch(const ServingParts& parts);
  // REQUIRES: the engine was shut down.
  void Stop();

 private:
  const ObservabilityOptions options_;
  std::unique_ptr<ServingMetrics> metrics_;
  std::unique_ptr<CallLog> call_log_;
  // Set between Watch and Stop; what it points to is made before and goes after.
  std::atomic<RecommendEngine*> engine_{nullptr};
  std::atomic<const SnapshotSource*> snapshots_{nullptr};
  std::unique_ptr<QualityMonitor> quality_;
  std::vector<CallHook*> hooks_;
  std::vector<EngineObserver*> observers_;
  std::vector<std::unique_ptr<Metrics::Registration>> collected_;
};

}  // namespace nestrec

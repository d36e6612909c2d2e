#include "server/observability.h"

#include "server/request_recorder.h"

namespace nestrec {

Observability::Observability(const ObservabilityOptions& options, const Clock& clock)
    : options_(options) {
  if (options_.log != nullptr) {
    call_log_ = std::make_unique<CallLog>(
        *options_.log, CallLog::Options{.slow = options_.slow_request, .clock = clock});
    hooks_.push_back(call_log_.get());
  }
  if (options_.metrics != nullptr) {
    metrics_ = std::make_unique<ServingMetrics>(*options_.metrics);
    hooks_.push_back(metrics_.get());
    observers_.push_back(metrics_.get());
  }
  if (options_.metrics != nullptr) {
    quality_ = std::make_unique<QualityMonitor>(
        *options_.metrics,
        QualityMonitor::Options{.share = options_.quality_share,
                                .shadow_for =
                                    [this](const Snapshot& answered) {
                                      const SnapshotSource* const snapshots = snapshots_.load();
                                      return snapshots == nullptr ? nullptr
                                                                  : snapshots->ShadowFor(answered);
                                    },
                                .overloaded =
                                    [this] {
                                      RecommendEngine* const engine = engine_.load();
                                      return engine == nullptr || engine->overloaded();
                                    }});
    observers_.push_back(quality_.get());
  }
  if (options_.recorder != nullptr) observers_.push_back(options_.recorder);
}

void Observability::Watch(const ServingParts& parts) {
  engine_ = parts.engine;
  snapshots_ = parts.snapshots;
  if (options_.metrics == nullptr) return;
  collected_.push_back(CollectServing(*options_.metrics, parts));
  if (options_.recorder != nullptr) {
    collected_.push_back(CollectRecorder(*options_.metrics, *options_.recorder));
  }
}

void Observability::Stop() {
  collected_.clear();
  quality_.reset();
  engine_ = nullptr;
  snapshots_ = nullptr;
}

}  // namespace nestrec

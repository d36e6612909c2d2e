#include "server/observability.h"

#include "server/request_recorder.h"

namespace nestrec {

Observability::Observability(const ObservabilityOptions& options, const Clock& clock)
    : options_(options), call_log_(options.log, {.slow = options.slow_request, .clock = clock}) {
  hooks_.push_back(&call_log_);
  if (options_.metrics != nullptr) {
    metrics_ = std::make_unique<ServingMetrics>(*options_.metrics);
    hooks_.push_back(metrics_.get());
    observers_.push_back(metrics_.get());
  }
  if (options_.recorder != nullptr) observers_.push_back(options_.recorder);
}

void Observability::Watch(const ServingParts& parts) {
  if (options_.metrics == nullptr) return;
  collected_.push_back(CollectServing(*options_.metrics, parts));
  if (options_.recorder != nullptr) {
    collected_.push_back(CollectRecorder(*options_.metrics, *options_.recorder));
  }
}

void Observability::Stop() { collected_.clear(); }

}  // namespace nestrec

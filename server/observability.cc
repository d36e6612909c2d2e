#include "server/observability.h"

namespace nestrec {

Observability::Observability(const ObservabilityOptions& options) : options_(options) {
  if (options_.metrics != nullptr) {
    metrics_ = std::make_unique<ServingMetrics>(*options_.metrics);
    hooks_.push_back(metrics_.get());
    observers_.push_back(metrics_.get());
  }
}

void Observability::Watch(const ServingParts& parts) {
  if (options_.metrics != nullptr) collected_ = CollectServing(*options_.metrics, parts);
}

void Observability::Stop() { collected_.reset(); }

}  // namespace nestrec

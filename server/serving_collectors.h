// What the parts of a server know of themselves, read when metrics are asked for: queues, the load,
// sessions, the model. docs/operations.md lists the names.
//
// Thread safety: the collector may be called from any thread.
#pragma once

#include <memory>

#include "server/lifecycle/model_manager.h"
#include "server/metrics.h"
#include "server/recommend_engine.h"
#include "server/session/session_manager.h"
#include "server/snapshot_source.h"
#include "server/worker_pool.h"

namespace nestrec {

// All outlive the registration.
struct ServingParts {
  RecommendEngine* engine = nullptr;
  const SnapshotSource* snapshots = nullptr;
  WorkerPool* session_workers = nullptr;     // null: none
  const SessionManager* sessions = nullptr;  // null: none
  const ModelManager* models = nullptr;      // null: one model for good
};

[[nodiscard]] std::unique_ptr<Metrics::Registration> CollectServing(Metrics& metrics,
                                                                    const ServingParts& parts);

}  // namespace nestrec

// The pages that operators' tools read:
//   /metrics  for Prometheus
//   /healthz  200 while the process answers at all
//   /readyz   200 when the server is to get requests, else 503 with the reason
//
// Thread safety: pages may be made from any thread.
#pragma once

#include <memory>

#include "server/http_server.h"
#include "server/metrics.h"
#include "server/readiness.h"

namespace nestrec {

// Both must outlive the pages.
HttpServer::Pages OperatorPages(const Metrics& metrics, const Readiness& readiness);

// nestrec_ready: 1 or 0. The readiness outlives the registration.
[[nodiscard]] std::unique_ptr<Metrics::Registration> CollectReadiness(Metrics& metrics,
                                                                      const Readiness& readiness);

}  // namespace nestrec

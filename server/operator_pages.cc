#include "server/operator_pages.h"

#include "absl/strings/str_cat.h"

namespace nestrec {

HttpServer::Pages OperatorPages(const Metrics& metrics, const Readiness& readiness) {
  return {{"/metrics",
           [&metrics] {
             return HttpPage{.text = metrics.Text(),
                             .type = "text/plain; version=0.0.4; charset=utf-8"};
           }},
          {"/healthz", [] { return HttpPage{.text = "alive\n"}; }},
          {"/readyz", [&readiness] {
             const std::string why_not = readiness.why_not();
             return why_not.empty()
                        ? HttpPage{.text = "ready\n"}
                        : HttpPage{.code = 503, .text = absl::StrCat("not ready: ", why_not, "\n")};
           }}};
}

std::unique_ptr<Metrics::Registration> CollectReadiness(Metrics& metrics,
                                                        const Readiness& readiness) {
  return metrics.Collect([&readiness](MetricWriter& writer) {
    writer.Gauge("nestrec_ready", "1 when requests are welcome, as /readyz says it, else 0.",
                 readiness.why_not().empty() ? 1 : 0);
  });
}

}  // namespace nestrec

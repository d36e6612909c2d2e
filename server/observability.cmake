# What operators see of a running server: metrics, and an HTTP listener that shows them. No gRPC and no model here.
nestrec_library(server_metrics
  SRCS http_request.cc http_server.cc listen_address.cc metrics.cc operator_pages.cc process_metrics.cc readiness.cc
  HDRS clock.h http_request.h http_server.h listen_address.h metrics.h operator_pages.h process_metrics.h readiness.h
  DEPS nestrec::base absl::core_headers absl::flat_hash_map absl::status absl::statusor absl::strings absl::time
  PRIVATE_DEPS nestrec::prometheus nestrec::threads absl::cleanup)

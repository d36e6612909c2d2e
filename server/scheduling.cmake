# What decides when and how wide a request is served: no index and no model here.
nestrec_library(scheduling
  SRCS batch_estimate.cc batch_queue.cc batcher.cc cost_model.cc overload_controller.cc policy.cc quantile_sketch.cc status_details.cc
    tiers.cc width_hold.cc
  HDRS batch_estimate.h batch_queue.h batcher.h clock.h cost_model.h mutex.h overload_controller.h policy.h proto_time.h quantile_sketch.h
    status_details.h tiers.h width_hold.h
  DEPS nestrec::base nestrec::proto absl::core_headers absl::status absl::statusor absl::strings absl::time
  PRIVATE_DEPS nestrec::openmp nestrec::threads)

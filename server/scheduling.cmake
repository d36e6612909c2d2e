# What decides when and how wide a request is served: no gRPC and no libtorch here.
nestrec_library(scheduling
  SRCS cost_model.cc overload_controller.cc quantile_sketch.cc
  HDRS clock.h cost_model.h mutex.h overload_controller.h quantile_sketch.h
  DEPS nestrec::base absl::core_headers absl::status absl::statusor absl::strings absl::time
  PRIVATE_DEPS nestrec::openmp nestrec::threads)

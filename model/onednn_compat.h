// What differs between oneDNN 2 (Debian 12) and 3 (Debian 13), and the engine that all calls share.
#pragma once

#include <dnnl_version.h>

#include <dnnl.hpp>

namespace nestrec {

inline const dnnl::engine& OneDnnEngine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Streams belong to one thread each.
inline dnnl::stream& OneDnnStream() {
  thread_local dnnl::stream stream(OneDnnEngine());
  return stream;
}

inline dnnl::matmul::primitive_desc MatmulDescriptor(const dnnl::memory::desc& left,
                                                     const dnnl::memory::desc& right,
                                                     const dnnl::memory::desc& result,
                                                     const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {OneDnnEngine(), left, right, result, attributes};
#else
  return {dnnl::matmul::desc(left, right, result), attributes, OneDnnEngine()};
#endif
}

}  // namespace nestrec

# Finds every library that nestrec uses and gives each one a target `nestrec::<library>`, so that no
# other CMake file knows where a library comes from. Nothing is downloaded here.
#
#   nestrec::torch     libtorch, with OpenMP (at::parallel_for is compiled into its callers)
#   nestrec::c10d      torch's distributed package, with Gloo's headers where they are
#   nestrec::faiss     FAISS; defines NESTREC_FAISS_ISA as "avx512", "avx2" or "generic"
#   nestrec::blas      OpenBLAS and <cblas.h>: at run time the same library that libtorch calls
#   nestrec::openmp    OpenMP
#   nestrec::onednn    oneDNN (its C interface's matrix product);  nestrec::highway: Highway's SIMD types
#   nestrec::threads   the thread library
#   nestrec::protobuf  libprotobuf
#   nestrec::grpc      gRPC C++;  nestrec::grpc_reflection, nestrec::grpc_channelz: its plugins
#   nestrec::prometheus  prometheus-cpp's core (registry and text serializer)
#   nestrec::httplib   cpp-httplib
#   nestrec::json      nlohmann/json;  nestrec::cli11: CLI11
#   nestrec::zlib      zlib;  nestrec::xxhash: xxHash's header (define XXH_INLINE_ALL)
#   nestrec::roaring   CRoaring's C interface
#   nestrec::hiredis   Redis's C client
#   nestrec::crypto    OpenSSL's libcrypto, which gRPC's TLS is built on
#   absl::*            Abseil keeps its own target names
#
# All libraries that are missing are reported at once, each with its cure.

set(nestrec_missing "")

# Notes that `what` was not found, and which packages bring it.
macro(nestrec_note_missing what packages)
  list(APPEND nestrec_missing
    "${what} not found: run tools/setup.sh (or apt-get install ${packages})")
endmacro()

# An alias target, whatever the kind of the target behind it.
function(nestrec_alias name)
  if(NOT TARGET nestrec::${name})
    add_library(nestrec_dep_${name} INTERFACE)
    target_link_libraries(nestrec_dep_${name} INTERFACE ${ARGN})
    add_library(nestrec::${name} ALIAS nestrec_dep_${name})
  endif()
endfunction()

# The packages' own config files like to chat.
set(nestrec_saved_log_level "${CMAKE_MESSAGE_LOG_LEVEL}")
set(CMAKE_MESSAGE_LOG_LEVEL NOTICE)

find_package(PkgConfig QUIET)
find_package(Threads REQUIRED)
nestrec_alias(threads Threads::Threads)
find_package(OpenMP QUIET COMPONENTS CXX)
if(OpenMP_CXX_FOUND)
  nestrec_alias(openmp OpenMP::OpenMP_CXX)
else()
  nestrec_note_missing("OpenMP for this compiler" "build-essential; with Clang: libomp-dev")
endif()

include(NestrecBlas)
include(NestrecTorch)
include(NestrecFaiss)
include(NestrecGrpc)

find_package(absl CONFIG QUIET)
if(NOT absl_FOUND)
  nestrec_note_missing("Abseil" "libabsl-dev")
endif()

find_package(prometheus-cpp CONFIG QUIET)
if(TARGET prometheus-cpp::core)
  nestrec_alias(prometheus prometheus-cpp::core)
else()
  nestrec_note_missing("prometheus-cpp" "prometheus-cpp-dev")
endif()

find_package(httplib CONFIG QUIET)
if(NOT TARGET httplib::httplib AND PkgConfig_FOUND)
  pkg_check_modules(nestrec_httplib QUIET IMPORTED_TARGET cpp-httplib)
endif()
if(TARGET httplib::httplib)
  nestrec_alias(httplib httplib::httplib Threads::Threads)
elseif(TARGET PkgConfig::nestrec_httplib)
  nestrec_alias(httplib PkgConfig::nestrec_httplib Threads::Threads)
else()
  nestrec_note_missing("cpp-httplib" "libcpp-httplib-dev")
endif()

find_package(nlohmann_json CONFIG QUIET)
if(TARGET nlohmann_json::nlohmann_json)
  nestrec_alias(json nlohmann_json::nlohmann_json)
else()
  nestrec_note_missing("nlohmann/json" "nlohmann-json3-dev")
endif()

# By its files: Debian's dnnl-config.cmake asks for the headers of OpenCL, which its package does not bring and only
# dnnl_ocl.h needs.
find_path(NESTREC_ONEDNN_INCLUDE_DIR dnnl.h)
find_library(NESTREC_ONEDNN_LIBRARY dnnl)
mark_as_advanced(NESTREC_ONEDNN_INCLUDE_DIR NESTREC_ONEDNN_LIBRARY)
if(NESTREC_ONEDNN_INCLUDE_DIR AND NESTREC_ONEDNN_LIBRARY)
  add_library(nestrec_onednn_files UNKNOWN IMPORTED)
  set_target_properties(nestrec_onednn_files PROPERTIES
    IMPORTED_LOCATION "${NESTREC_ONEDNN_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NESTREC_ONEDNN_INCLUDE_DIR}")
  nestrec_alias(onednn nestrec_onednn_files)
  # A libtorch of one's own has a oneDNN inside and shows the once-only functions that make its kernels. Of two
  # such the loader takes the first: this one's must be, or it finds none of its own ("could not execute a primitive").
  # Nothing that nestrec asks of libtorch goes by oneDNN.
  if(NESTREC_TORCH_CONFIG AND TARGET nestrec_torch_files)
    target_link_options(nestrec_torch_files INTERFACE
      "-Wl,--push-state,--no-as-needed,${NESTREC_ONEDNN_LIBRARY},--pop-state")
  endif()
else()
  nestrec_note_missing("oneDNN" "libdnnl-dev")
endif()

find_package(hwy CONFIG QUIET)
if(NOT TARGET hwy::hwy AND PkgConfig_FOUND)
  pkg_check_modules(nestrec_highway QUIET IMPORTED_TARGET libhwy)
endif()
if(TARGET hwy::hwy)
  nestrec_alias(highway hwy::hwy)
elseif(TARGET PkgConfig::nestrec_highway)
  nestrec_alias(highway PkgConfig::nestrec_highway)
else()
  nestrec_note_missing("Highway" "libhwy-dev")
endif()

find_package(OpenSSL QUIET)
if(TARGET OpenSSL::Crypto)
  nestrec_alias(crypto OpenSSL::Crypto)
else()
  nestrec_note_missing("OpenSSL" "libssl-dev")
endif()

find_package(ZLIB QUIET)
if(TARGET ZLIB::ZLIB)
  nestrec_alias(zlib ZLIB::ZLIB)
else()
  nestrec_note_missing("zlib" "zlib1g-dev")
endif()

find_path(NESTREC_XXHASH_INCLUDE_DIR xxhash.h)
mark_as_advanced(NESTREC_XXHASH_INCLUDE_DIR)
if(NESTREC_XXHASH_INCLUDE_DIR)
  add_library(nestrec_xxhash_header INTERFACE)
  target_include_directories(nestrec_xxhash_header SYSTEM INTERFACE "${NESTREC_XXHASH_INCLUDE_DIR}")
  nestrec_alias(xxhash nestrec_xxhash_header)
else()
  nestrec_note_missing("xxHash" "libxxhash-dev")
endif()

# By its files: an older release's roaring-config.cmake asks for a CMake that new ones no longer imitate.
find_path(NESTREC_ROARING_INCLUDE_DIR roaring/roaring.h)
find_library(NESTREC_ROARING_LIBRARY roaring)
mark_as_advanced(NESTREC_ROARING_INCLUDE_DIR NESTREC_ROARING_LIBRARY)
if(NESTREC_ROARING_INCLUDE_DIR AND NESTREC_ROARING_LIBRARY)
  add_library(nestrec_roaring_files UNKNOWN IMPORTED)
  set_target_properties(nestrec_roaring_files PROPERTIES
    IMPORTED_LOCATION "${NESTREC_ROARING_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NESTREC_ROARING_INCLUDE_DIR}")
  nestrec_alias(roaring nestrec_roaring_files)
else()
  nestrec_note_missing("CRoaring" "libroaring-dev")
endif()

# By its files: releases before 1.0 bring no package for CMake.
find_path(NESTREC_HIREDIS_INCLUDE_DIR hiredis/hiredis.h)
find_library(NESTREC_HIREDIS_LIBRARY hiredis)
mark_as_advanced(NESTREC_HIREDIS_INCLUDE_DIR NESTREC_HIREDIS_LIBRARY)
if(NESTREC_HIREDIS_INCLUDE_DIR AND NESTREC_HIREDIS_LIBRARY)
  add_library(nestrec_hiredis_files UNKNOWN IMPORTED)
  set_target_properties(nestrec_hiredis_files PROPERTIES
    IMPORTED_LOCATION "${NESTREC_HIREDIS_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NESTREC_HIREDIS_INCLUDE_DIR}")
  nestrec_alias(hiredis nestrec_hiredis_files)
else()
  nestrec_note_missing("hiredis" "libhiredis-dev")
endif()

find_package(CLI11 CONFIG QUIET)
if(TARGET CLI11::CLI11)
  nestrec_alias(cli11 CLI11::CLI11)
else()
  nestrec_note_missing("CLI11" "libcli11-dev")
endif()

if(NESTREC_BUILD_TESTS)
  find_package(GTest CONFIG QUIET)
  if(NOT TARGET GTest::gmock_main)
    nestrec_note_missing("GoogleTest with GoogleMock" "libgtest-dev libgmock-dev")
  endif()
endif()

set(CMAKE_MESSAGE_LOG_LEVEL "${nestrec_saved_log_level}")

if(nestrec_missing)
  list(JOIN nestrec_missing "\n  " nestrec_missing_lines)
  message(FATAL_ERROR "Some of what nestrec is built on is missing:\n  ${nestrec_missing_lines}\n")
endif()

# One line per library that has more than one possible origin.
function(nestrec_print_summary)
  message(STATUS "libtorch ${nestrec_torch_version} (${nestrec_torch_origin}) ${nestrec_gloo}")
  message(STATUS "FAISS ${nestrec_faiss_isa} (${nestrec_faiss_origin})")
  if(nestrec_faiss_isa STREQUAL "generic" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    message(STATUS "  built without AVX2: flat search is about 4x slower; cure: tools/build_faiss.sh, then configure again")
  endif()
  message(STATUS "BLAS ${nestrec_blas_origin}")
  set(extras "")
  if(NESTREC_CCACHE_PROGRAM AND NESTREC_CCACHE)
    string(APPEND extras ", ccache")
  endif()
  if(nestrec_linker)
    string(APPEND extras ", linker ${nestrec_linker}")
  endif()
  if(NESTREC_SANITIZE)
    string(APPEND extras ", sanitizer ${NESTREC_SANITIZE}")
  endif()
  message(STATUS
    "nestrec ${PROJECT_VERSION}: ${CMAKE_BUILD_TYPE}, ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}${extras}")
endfunction()

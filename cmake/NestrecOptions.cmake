# What a person may choose, and the compiler settings that follow from it.

if(DEFINED ENV{NESTREC_WERROR})
  set(werror_default "$ENV{NESTREC_WERROR}")
else()
  set(werror_default OFF)
endif()
option(NESTREC_WERROR "Treat warnings as errors (default: the environment variable of that name)" "${werror_default}")
option(NESTREC_BUILD_TESTS "Build the tests" ON)
option(NESTREC_CCACHE "Compile through ccache when it is installed" ON)
option(NESTREC_TORCH_PCH "Precompile torch/torch.h (pays from five files on; 650 MB)" OFF)
set(NESTREC_SANITIZE "" CACHE STRING "Sanitizer: empty, address (with undefined) or thread")
set_property(CACHE NESTREC_SANITIZE PROPERTY STRINGS "" address thread)
option(NESTREC_FUZZ "Build the fuzzers of tests/fuzz (Clang; preset fuzz)" OFF)
set(NESTREC_LINKER "auto" CACHE STRING "Linker: auto (the fastest one installed), default, mold, lld or gold")
set(NESTREC_FAISS "auto" CACHE STRING
    "FAISS to use: auto (CMAKE_PREFIX_PATH, then the AVX2 build of tools/build_faiss.sh, then the system's) or system")
set_property(CACHE NESTREC_FAISS PROPERTY STRINGS auto system)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(THREADS_PREFER_PTHREAD_FLAG ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

if(NOT CMAKE_CXX_COMPILER_ID MATCHES "^(GNU|Clang|AppleClang)$")
  message(FATAL_ERROR "nestrec is built with GCC or Clang; this compiler is ${CMAKE_CXX_COMPILER_ID}")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR "GCC 12 or newer is needed for C++20; this is ${CMAKE_CXX_COMPILER_VERSION}")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
  message(FATAL_ERROR "Clang 14 or newer is needed for C++20; this is ${CMAKE_CXX_COMPILER_VERSION}")
endif()

# Our own code only: generated code and other people's headers are not ours to mend.
add_library(nestrec_warnings INTERFACE)
target_compile_options(nestrec_warnings INTERFACE
  -Wall -Wextra -Wno-missing-field-initializers
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
  $<$<BOOL:${NESTREC_WERROR}>:-Werror>)
# GCC 12 sees overlapping copies in the standard library's own string concatenation; there are none
# (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(nestrec_warnings INTERFACE -Wno-restrict)
endif()
# GCC 13 and 14 see an overrun in std::vector<bool>::reserve inside libtorch's Function::apply; there is none.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  target_compile_options(nestrec_warnings INTERFACE -Wno-array-bounds -Wno-stringop-overflow)
endif()

if(NESTREC_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "NESTREC_FUZZ needs Clang, whose libFuzzer it uses; this is ${CMAKE_CXX_COMPILER_ID}: use the preset fuzz")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(NESTREC_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(NESTREC_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
  # GCC warns that ThreadSanitizer does not model atomic_thread_fence, which other people's headers use.
  target_compile_options(nestrec_warnings INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
elseif(NESTREC_SANITIZE)
  message(FATAL_ERROR "NESTREC_SANITIZE is '${NESTREC_SANITIZE}'; it may be empty, address or thread")
endif()

# Debian's Abseil and gRPC are many shared libraries; a program should load only those that it calls.
add_link_options(-Wl,--as-needed)

if(NESTREC_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(NESTREC_CCACHE_PROGRAM ccache)
  mark_as_advanced(NESTREC_CCACHE_PROGRAM)
  if(NESTREC_CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${NESTREC_CCACHE_PROGRAM}")
    if(NESTREC_TORCH_PCH)  # what ccache asks for when precompiled headers are in use
      list(PREPEND CMAKE_CXX_COMPILER_LAUNCHER
           "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros)
      if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
      endif()
    endif()
  endif()
endif()

if(NOT NESTREC_LINKER STREQUAL "default")
  include(CheckLinkerFlag)
  set(candidates "${NESTREC_LINKER}")
  if(NESTREC_LINKER STREQUAL "auto")
    set(candidates mold lld gold)
  endif()
  foreach(linker IN LISTS candidates)
    set(CMAKE_REQUIRED_QUIET ON)
    check_linker_flag(CXX "-fuse-ld=${linker}" NESTREC_HAS_LINKER_${linker})
    if(NESTREC_HAS_LINKER_${linker})
      add_link_options("-fuse-ld=${linker}")
      set(nestrec_linker "${linker}")
      break()
    endif()
  endforeach()
  if(NOT nestrec_linker AND NOT NESTREC_LINKER STREQUAL "auto")
    message(FATAL_ERROR "NESTREC_LINKER is '${NESTREC_LINKER}', which the compiler cannot use here")
  endif()
endif()

# A file that includes torch/torch.h takes up to 1.5 GB to compile: no more of them at once than fit.
cmake_host_system_information(RESULT nestrec_memory_mb QUERY TOTAL_PHYSICAL_MEMORY)
cmake_host_system_information(RESULT nestrec_cores QUERY NUMBER_OF_LOGICAL_CORES)
math(EXPR nestrec_torch_jobs "${nestrec_memory_mb} / 2048")
if(nestrec_torch_jobs LESS 1)
  set(nestrec_torch_jobs 1)
elseif(nestrec_torch_jobs GREATER nestrec_cores)
  set(nestrec_torch_jobs ${nestrec_cores})
endif()
set_property(GLOBAL APPEND PROPERTY JOB_POOLS nestrec_torch=${nestrec_torch_jobs})

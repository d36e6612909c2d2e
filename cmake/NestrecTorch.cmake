# nestrec::torch. A TorchConfig.cmake that somebody points at (CMAKE_PREFIX_PATH, Torch_ROOT or Torch_DIR)
# wins over the system's libtorch. The system's is found by its files: Debian's TorchConfig.cmake differs
# from release to release and drags in libraries that libtorch itself already links.

find_package(Torch CONFIG QUIET NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH NO_CMAKE_PACKAGE_REGISTRY)

if(Torch_FOUND)
  # A library with the old string ABI links, but every call with a std::string in it is then unresolved.
  if("${TORCH_CXX_FLAGS}" MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
    message(FATAL_ERROR "The libtorch in ${Torch_DIR} was built with the old C++ ABI "
      "(_GLIBCXX_USE_CXX11_ABI=0), which does not fit the other libraries. Take the \"cxx11 ABI\" "
      "archive of libtorch, or a Python wheel of version 2.7 or newer.")
  endif()
  nestrec_alias(torch ${TORCH_LIBRARIES} OpenMP::OpenMP_CXX)
  set_property(TARGET nestrec_dep_torch PROPERTY INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${TORCH_INCLUDE_DIRS})
  set(nestrec_torch_version "${Torch_VERSION}")
  set(nestrec_torch_origin "${Torch_DIR}")
else()
  unset(Torch_DIR CACHE)
  find_path(NESTREC_TORCH_INCLUDE_DIR torch/csrc/api/include/torch/torch.h)
  find_library(NESTREC_TORCH_LIBRARY torch)
  find_library(NESTREC_TORCH_CPU_LIBRARY torch_cpu)
  find_library(NESTREC_C10_LIBRARY c10)
  mark_as_advanced(NESTREC_TORCH_INCLUDE_DIR NESTREC_TORCH_LIBRARY NESTREC_TORCH_CPU_LIBRARY NESTREC_C10_LIBRARY)
  if(NESTREC_TORCH_INCLUDE_DIR AND NESTREC_TORCH_CPU_LIBRARY AND NESTREC_C10_LIBRARY)
    add_library(nestrec_torch_files INTERFACE)
    target_include_directories(nestrec_torch_files SYSTEM INTERFACE
      "${NESTREC_TORCH_INCLUDE_DIR}" "${NESTREC_TORCH_INCLUDE_DIR}/torch/csrc/api/include")
    target_link_libraries(nestrec_torch_files INTERFACE
      "${NESTREC_TORCH_LIBRARY}" "${NESTREC_TORCH_CPU_LIBRARY}" "${NESTREC_C10_LIBRARY}")
    nestrec_alias(torch nestrec_torch_files OpenMP::OpenMP_CXX)
    set(nestrec_torch_version "")
    set(version_header "${NESTREC_TORCH_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h")
    if(EXISTS "${version_header}")
      file(READ "${version_header}" header)
      if(header MATCHES "define TORCH_VERSION[ \\\n]*\"([^\"]+)\"")
        set(nestrec_torch_version "${CMAKE_MATCH_1}")
      endif()
    endif()
    set(nestrec_torch_origin "${NESTREC_TORCH_LIBRARY}")
  else()
    nestrec_note_missing("libtorch" "libtorch-dev")
  endif()
endif()

# nestrec::c10d: torch's distributed package, for the one target that includes it. Its headers want those of
# Gloo, which Debian packages apart; without them nestrec trains with one process. A libtorch of one's own says
# by itself what it was built with (USE_C10D_GLOO, USE_C10D_NCCL); Debian's has Gloo.
find_path(NESTREC_GLOO_INCLUDE_DIR gloo/rendezvous/store.h)
mark_as_advanced(NESTREC_GLOO_INCLUDE_DIR)
add_library(nestrec_c10d_headers INTERFACE)
if(NESTREC_GLOO_INCLUDE_DIR)
  target_include_directories(nestrec_c10d_headers SYSTEM INTERFACE "${NESTREC_GLOO_INCLUDE_DIR}")
  if(NOT Torch_FOUND)
    target_compile_definitions(nestrec_c10d_headers INTERFACE USE_C10D_GLOO)
  endif()
  set(nestrec_gloo "with Gloo")
else()
  set(nestrec_gloo "without Gloo: trains with one process; cure: tools/setup.sh, then configure again")
endif()
nestrec_alias(c10d nestrec_c10d_headers nestrec::torch)

# libtorch 1.13 has std::vector<IValue> members of an incomplete IValue, which GCC lets pass in C++20 and
# Clang does not. clang-tidy therefore leaves out the targets that see its headers; the fuzzers need none of them.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND nestrec_torch_version AND nestrec_torch_version VERSION_LESS 2
   AND NOT NESTREC_FUZZ)
  message(FATAL_ERROR "The headers of libtorch ${nestrec_torch_version} do not compile as C++20 with Clang: "
    "use GCC (CXX=g++), or libtorch 2 or newer")
endif()

# nestrec::torch and nestrec::c10d.
#
# A libtorch of one's own, the archive's or a Python wheel's, wins over the system's; its folder is named by
# CMAKE_PREFIX_PATH, Torch_ROOT or Torch_DIR. Either is found by its files: TorchConfig.cmake drags in libraries
# that libtorch itself already links, and of a libtorch with CUDA it asks for nvcc, which nothing here needs.

find_file(NESTREC_TORCH_CONFIG TorchConfig.cmake
  HINTS "${Torch_DIR}" "${Torch_ROOT}" "$ENV{Torch_ROOT}"
  PATHS ${CMAKE_PREFIX_PATH} ENV CMAKE_PREFIX_PATH
  PATH_SUFFIXES share/cmake/Torch NO_DEFAULT_PATH)
mark_as_advanced(NESTREC_TORCH_CONFIG)

set(nestrec_torch_where "")
set(nestrec_torch_defines "")
if(NESTREC_TORCH_CONFIG)
  file(REAL_PATH "${NESTREC_TORCH_CONFIG}/../../../.." nestrec_torch_root)
  set(nestrec_torch_where PATHS "${nestrec_torch_root}" NO_DEFAULT_PATH)
  # A library with the old string ABI links, but every call with a std::string in it is then unresolved.
  file(STRINGS "${NESTREC_TORCH_CONFIG}" old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
  if(old_abi)
    message(FATAL_ERROR "The libtorch in ${nestrec_torch_root} was built with the old C++ ABI "
      "(_GLIBCXX_USE_CXX11_ABI=0), which does not fit the other libraries. Take the \"cxx11 ABI\" "
      "archive of libtorch, or a Python wheel of version 2.7 or newer.")
  endif()
  # What it was built with: USE_C10D_GLOO, USE_C10D_NCCL and others that its headers ask for.
  file(GLOB targets "${nestrec_torch_root}/share/cmake/Caffe2/Caffe2Targets.cmake")
  foreach(file IN LISTS targets)
    file(STRINGS "${file}" lines REGEX "INTERFACE_COMPILE_DEFINITIONS.*USE_")
    string(REGEX MATCHALL "USE_[A-Z0-9_]+" nestrec_torch_defines "${lines}")
    list(REMOVE_DUPLICATES nestrec_torch_defines)
  endforeach()
elseif(Torch_DIR OR Torch_ROOT)
  message(FATAL_ERROR "There is no TorchConfig.cmake in Torch_DIR (${Torch_DIR}) or Torch_ROOT (${Torch_ROOT}). "
    "Torch_ROOT is the folder that has include, lib and share in it: of a Python wheel site-packages/torch")
endif()

find_path(NESTREC_TORCH_INCLUDE_DIR torch/csrc/api/include/torch/torch.h
  ${nestrec_torch_where} PATH_SUFFIXES include)
foreach(library IN ITEMS torch torch_cpu c10 torch_cuda c10_cuda)
  string(TOUPPER "NESTREC_${library}_LIBRARY" variable)
  find_library(${variable} ${library} ${nestrec_torch_where} PATH_SUFFIXES lib)
  mark_as_advanced(${variable})
endforeach()
mark_as_advanced(NESTREC_TORCH_INCLUDE_DIR)

# An archive and a wheel also hold a protoc of their own and headers of oneDNN, without the library: nobody shall find
# those through CMAKE_PREFIX_PATH. Other folders may be libtorch's and others'.
if(NESTREC_TORCH_CONFIG AND (EXISTS "${nestrec_torch_root}/build-version" OR EXISTS "${nestrec_torch_root}/version.py"))
  list(APPEND CMAKE_IGNORE_PREFIX_PATH "${nestrec_torch_root}")
endif()

set(nestrec_torch_version "")
set(nestrec_torch_cuda OFF)
if(NESTREC_TORCH_INCLUDE_DIR AND NESTREC_TORCH_CPU_LIBRARY AND NESTREC_C10_LIBRARY)
  add_library(nestrec_torch_files INTERFACE)
  target_include_directories(nestrec_torch_files SYSTEM INTERFACE
    "${NESTREC_TORCH_INCLUDE_DIR}" "${NESTREC_TORCH_INCLUDE_DIR}/torch/csrc/api/include")
  set(version_header "${NESTREC_TORCH_INCLUDE_DIR}/torch/csrc/api/include/torch/version.h")
  if(EXISTS "${version_header}")
    file(READ "${version_header}" header)
    if(header MATCHES "define TORCH_VERSION[ \\\n]*\"([^\"]+)\"")
      set(nestrec_torch_version "${CMAKE_MATCH_1}")
    endif()
  endif()
  set(nestrec_torch_origin "${NESTREC_TORCH_LIBRARY}")
  set(libraries "${NESTREC_TORCH_LIBRARY}" "${NESTREC_TORCH_CPU_LIBRARY}" "${NESTREC_C10_LIBRARY}")
  if(NESTREC_TORCH_CUDA_LIBRARY AND NESTREC_C10_CUDA_LIBRARY)
    # Nothing of it is called by name, and yet its kernels must be there: not as needed. The CUDA libraries behind
    # it are its own affair.
    set(nestrec_torch_cuda ON)
    list(APPEND libraries --no-as-needed "${NESTREC_TORCH_CUDA_LIBRARY}" "${NESTREC_C10_CUDA_LIBRARY}")
    target_link_options(nestrec_torch_files INTERFACE "-Wl,--allow-shlib-undefined")
  endif()
  if(NESTREC_TORCH_CONFIG)
    # As the linker's own words: a wheel has its libgomp.so.1 in the same folder, of which CMake would warn at every
    # program. One of the two is loaded, whichever it is: they have the same name.
    cmake_path(GET NESTREC_TORCH_CPU_LIBRARY PARENT_PATH folder)
    list(JOIN libraries "," libraries)
    set(libraries "-Wl,--push-state,-rpath,${folder},${libraries},--pop-state")
  endif()
  target_link_libraries(nestrec_torch_files INTERFACE ${libraries})
  nestrec_alias(torch nestrec_torch_files OpenMP::OpenMP_CXX)
else()
  nestrec_note_missing("libtorch" "libtorch-dev")
endif()

# torch's distributed package, for the one target that includes it. Its headers want those of Gloo, which Debian
# packages apart: nestrec only passes pointers to Gloo's types on, so that any release of them will do. Without
# them there is no training with several processors. Debian's libtorch has Gloo and no NCCL.
find_path(NESTREC_GLOO_INCLUDE_DIR gloo/rendezvous/store.h)
mark_as_advanced(NESTREC_GLOO_INCLUDE_DIR)
if(NOT NESTREC_TORCH_CONFIG)
  set(nestrec_torch_defines USE_C10D_GLOO)
endif()
add_library(nestrec_c10d_headers INTERFACE)
if(NESTREC_GLOO_INCLUDE_DIR AND "USE_C10D_GLOO" IN_LIST nestrec_torch_defines)
  target_include_directories(nestrec_c10d_headers SYSTEM INTERFACE "${NESTREC_GLOO_INCLUDE_DIR}")
  set(nestrec_gloo "with Gloo")
else()
  list(REMOVE_ITEM nestrec_torch_defines USE_C10D_GLOO)
  set(nestrec_gloo "without Gloo: trains with one process; cure: tools/setup.sh, then configure again")
endif()

# NCCL's side of that package wants headers of CUDA: a toolkit's, or those that the wheel's companions bring, and
# nvidia-cuda-nvcc-cu12 and nvidia-cuda-cccl-cu12, which do not come along (crt/, nv/).
if(nestrec_torch_cuda)
  set(nestrec_gloo "${nestrec_gloo}, CUDA")
endif()
if("USE_C10D_NCCL" IN_LIST nestrec_torch_defines)
  file(GLOB nestrec_cuda_hints "${nestrec_torch_root}/../nvidia/*/include")
  set(nestrec_cuda_includes "")
  foreach(header IN ITEMS cuda_runtime.h crt/host_config.h nv/target cublas_v2.h cusparse.h cusolverDn.h nccl.h)
    string(MAKE_C_IDENTIFIER "NESTREC_${header}_INCLUDE_DIR" variable)
    string(TOUPPER "${variable}" variable)
    find_path(${variable} "${header}" HINTS ${nestrec_cuda_hints} $ENV{CUDA_HOME}/include PATHS /usr/local/cuda/include)
    mark_as_advanced(${variable})
    if(${variable})
      list(APPEND nestrec_cuda_includes "${${variable}}")
    else()
      list(REMOVE_ITEM nestrec_torch_defines USE_C10D_NCCL)
      list(APPEND nestrec_without_nccl "${header}")
    endif()
  endforeach()
  if("USE_C10D_NCCL" IN_LIST nestrec_torch_defines)
    list(REMOVE_DUPLICATES nestrec_cuda_includes)
    target_include_directories(nestrec_c10d_headers SYSTEM INTERFACE ${nestrec_cuda_includes})
    string(APPEND nestrec_gloo " and NCCL")
  else()
    list(JOIN nestrec_without_nccl ", " nestrec_without_nccl)
    string(APPEND nestrec_gloo " without NCCL: no ${nestrec_without_nccl}; cure: CUDA_HOME names a toolkit's folder")
  endif()
endif()
target_compile_definitions(nestrec_c10d_headers INTERFACE ${nestrec_torch_defines})
nestrec_alias(c10d nestrec_c10d_headers nestrec::torch)

# libtorch 1.13 has std::vector<IValue> members of an incomplete IValue, which GCC lets pass in C++20 and
# Clang does not. clang-tidy therefore leaves out the targets that see its headers; the fuzzers need none of them.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND nestrec_torch_version AND nestrec_torch_version VERSION_LESS 2
   AND NOT NESTREC_FUZZ)
  message(FATAL_ERROR "The headers of libtorch ${nestrec_torch_version} do not compile as C++20 with Clang: "
    "use GCC (CXX=g++), or libtorch 2 or newer")
endif()

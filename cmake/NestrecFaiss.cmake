# nestrec::faiss, the fastest variant at hand: a faiss that somebody points at (CMAKE_PREFIX_PATH), the
# AVX2 build that tools/build_faiss.sh keeps in its cache, the system's. The program can print and check
# the instruction set by NESTREC_FAISS_ISA; code built for AVX2 stops with SIGILL where there is none.

set(nestrec_faiss_isa "")

if(NESTREC_FAISS STREQUAL "auto")
  find_package(faiss CONFIG QUIET NO_CMAKE_SYSTEM_PATH NO_SYSTEM_ENVIRONMENT_PATH NO_CMAKE_PACKAGE_REGISTRY)
  foreach(isa IN ITEMS avx512 avx2 generic)
    set(target "faiss_${isa}")
    if(isa STREQUAL "generic")
      set(target faiss)
    endif()
    if(TARGET ${target} AND NOT nestrec_faiss_isa)
      set(nestrec_faiss_isa ${isa})
      set(nestrec_faiss_target ${target})
      set(nestrec_faiss_origin "${faiss_DIR}")
    endif()
  endforeach()
endif()

if(NOT nestrec_faiss_isa AND NESTREC_FAISS STREQUAL "auto")
  execute_process(COMMAND "${PROJECT_SOURCE_DIR}/tools/build_faiss.sh" --prefix
    OUTPUT_VARIABLE nestrec_faiss_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
    RESULT_VARIABLE nestrec_faiss_status)
  if(nestrec_faiss_status EQUAL 0)
    set(nestrec_faiss_isa avx2)
    set(nestrec_faiss_origin "${nestrec_faiss_prefix}")
    set(nestrec_faiss_library "${nestrec_faiss_prefix}/lib/libfaiss_avx2.a")
    set(nestrec_faiss_include "${nestrec_faiss_prefix}/include")
  endif()
endif()

if(NOT nestrec_faiss_isa)
  find_path(NESTREC_FAISS_INCLUDE_DIR faiss/Index.h)
  find_library(NESTREC_FAISS_LIBRARY faiss)
  mark_as_advanced(NESTREC_FAISS_INCLUDE_DIR NESTREC_FAISS_LIBRARY)
  if(NESTREC_FAISS_INCLUDE_DIR AND NESTREC_FAISS_LIBRARY)
    set(nestrec_faiss_isa generic)
    set(nestrec_faiss_origin "${NESTREC_FAISS_LIBRARY}")
    set(nestrec_faiss_library "${NESTREC_FAISS_LIBRARY}")
    set(nestrec_faiss_include "${NESTREC_FAISS_INCLUDE_DIR}")
  endif()
endif()

# A build that appears later is taken up by the next build of nestrec.
set(nestrec_cache "$ENV{HOME}/.cache/nestrec")
if(DEFINED ENV{NESTREC_CACHE})
  set(nestrec_cache "$ENV{NESTREC_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(nestrec_cache "$ENV{XDG_CACHE_HOME}/nestrec")
endif()
if(nestrec_faiss_isa STREQUAL "generic" AND EXISTS "${nestrec_cache}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${nestrec_cache}")
endif()

if(nestrec_faiss_isa)
  if(NOT nestrec_faiss_target)
    add_library(nestrec_faiss_files STATIC IMPORTED)
    set_target_properties(nestrec_faiss_files PROPERTIES
      IMPORTED_LOCATION "${nestrec_faiss_library}"
      INTERFACE_INCLUDE_DIRECTORIES "${nestrec_faiss_include}")
    target_link_libraries(nestrec_faiss_files INTERFACE OpenMP::OpenMP_CXX nestrec::blas)
    set(nestrec_faiss_target nestrec_faiss_files)
  endif()
  nestrec_alias(faiss ${nestrec_faiss_target})
  target_compile_definitions(nestrec_dep_faiss INTERFACE "NESTREC_FAISS_ISA=\"${nestrec_faiss_isa}\"")
else()
  nestrec_note_missing("FAISS" "libfaiss-dev")
endif()

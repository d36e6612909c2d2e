# nestrec::blas: OpenBLAS's OpenMP variant and its <cblas.h>.
#
# Debian's libtorch needs libblas.so.3 and FAISS needs libopenblas.so.0; both end in whatever variant the
# alternatives system points at. The pthread variant keeps threads of its own, which fight with OpenMP's
# (a flat search of 32 queries takes 4 times as long), so it is refused with a warning.

find_path(NESTREC_CBLAS_INCLUDE_DIR cblas.h
  PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp openblas-openmp openblas)
find_library(NESTREC_OPENBLAS_LIBRARY openblas
  PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp openblas-openmp)
mark_as_advanced(NESTREC_CBLAS_INCLUDE_DIR NESTREC_OPENBLAS_LIBRARY)

if(NESTREC_CBLAS_INCLUDE_DIR AND NESTREC_OPENBLAS_LIBRARY)
  add_library(nestrec_openblas UNKNOWN IMPORTED)
  set_target_properties(nestrec_openblas PROPERTIES
    IMPORTED_LOCATION "${NESTREC_OPENBLAS_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NESTREC_CBLAS_INCLUDE_DIR}")
  nestrec_alias(blas nestrec_openblas)
  set(nestrec_blas_origin "${NESTREC_OPENBLAS_LIBRARY}")
  foreach(name IN ITEMS libblas.so.3 libopenblas.so.0)
    file(REAL_PATH "/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/${name}" nestrec_resolved)
    if(nestrec_resolved MATCHES "pthread")
      message(WARNING "${name} is OpenBLAS's pthread variant (${nestrec_resolved}), whose threads fight with "
        "OpenMP's. Cure: tools/setup.sh, or update-alternatives --config ${name}-${CMAKE_LIBRARY_ARCHITECTURE}")
    endif()
  endforeach()
else()
  nestrec_note_missing("OpenBLAS" "libopenblas-openmp-dev")
endif()

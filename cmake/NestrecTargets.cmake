# The four kinds of target that nestrec has.
#
#   nestrec_library(index
#     SRCS nested_store.cc flat_index.cc
#     HDRS nested_store.h
#     DEPS nestrec::base            # what the headers show
#     PRIVATE_DEPS nestrec::faiss)  # what only the .cc files use
#       -> static library nestrec_index, alias nestrec::index
#
#   nestrec_program(nestrec SRCS main.cc DEPS nestrec::server)
#
#   nestrec_proto_library(proto PROTOS nestrec/v1/recommend.proto [GRPC])
#       -> library nestrec_proto, alias nestrec::proto; include "nestrec/v1/recommend.pb.h"
#
#   nestrec_test(nested_store_test nested_store_test.cc DEPS nestrec::index 
#                [SLOW] [WHOLE] [SERIAL] [NO_TSAN] [TIMEOUT seconds] [LABELS x ...])
#       -> a GoogleTest program whose tests ctest knows one by one. SLOW: label `slow`, left out of the
#          quick test presets; WHOLE: one ctest test, for programs that take long to start; SERIAL: never
#          beside another test; NO_TSAN: left out under ThreadSanitizer, for tests that talk gRPC (the
#          system's gRPC is not instrumented, so that all it does looks like a race)
#
# Includes are rooted at the source folder ("index/nested_store.h") and at the build folder. A target that
# sees libtorch's headers compiles in a job pool that fits the memory. <ATen/ATen.h>
# takes 5 s to parse where <torch/torch.h> takes 14 s. -DNESTREC_TORCH_PCH=ON precompiles torch/torch.h once
# for all targets: 7 s less a file, for 30 s once and 650 MB.

function(nestrec_configure_target target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPS")
  target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}")
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:nestrec_warnings>)
  nestrec_sees_torch(sees_torch ${arg_DEPS})
  if(sees_torch)
    set_property(TARGET ${target} PROPERTY JOB_POOL_COMPILE nestrec_torch)
    set_property(TARGET ${target} PROPERTY JOB_POOL_PRECOMPILE_HEADER nestrec_torch)
    if(nestrec_torch_version VERSION_LESS 2)
      set_property(TARGET ${target} PROPERTY CXX_CLANG_TIDY "")  # see NestrecTorch.cmake
    endif()
    if(NESTREC_TORCH_PCH)
      nestrec_use_torch_pch(${target})
    endif()
  endif()
endfunction()

# Whether the headers of libtorch reach whoever links `deps`.
function(nestrec_sees_torch result)
  set(${result} FALSE PARENT_SCOPE)
  foreach(dep IN LISTS ARGN)
    if(dep STREQUAL "nestrec::torch")
      set(${result} TRUE PARENT_SCOPE)
      return()
    elseif(dep MATCHES "^nestrec::" AND TARGET ${dep})
      get_target_property(deps_of_dep ${dep} INTERFACE_LINK_LIBRARIES)
      if(deps_of_dep)
        nestrec_sees_torch(seen ${deps_of_dep})
        if(seen)
          set(${result} TRUE PARENT_SCOPE)
          return()
        endif()
      endif()
    endif()
  endforeach()
endfunction()

# Works because all targets have the same code-generation flags (none sets a PIC flag of its own).
function(nestrec_use_torch_pch target)
  if(NOT TARGET nestrec_torch_pch)
    add_library(nestrec_torch_pch STATIC "${PROJECT_SOURCE_DIR}/cmake/torch_pch.cc")
    target_include_directories(nestrec_torch_pch PRIVATE "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}")
    target_link_libraries(nestrec_torch_pch PRIVATE nestrec::torch)
    target_precompile_headers(nestrec_torch_pch PRIVATE <torch/torch.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM nestrec_torch_pch)
endfunction()

function(nestrec_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;HDRS;DEPS;PRIVATE_DEPS")
  nestrec_check_arguments(nestrec_library "${arg_UNPARSED_ARGUMENTS}")
  set(target nestrec_${name})
  if(arg_SRCS)
    add_library(${target} STATIC ${arg_SRCS} ${arg_HDRS})
    target_link_libraries(${target} PUBLIC ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
    nestrec_configure_target(${target} DEPS ${arg_DEPS} ${arg_PRIVATE_DEPS})
  else()
    add_library(${target} INTERFACE ${arg_HDRS})
    target_link_libraries(${target} INTERFACE ${arg_DEPS})
    target_include_directories(${target} INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_BINARY_DIR}")
  endif()
  add_library(nestrec::${name} ALIAS ${target})
endfunction()

function(nestrec_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  nestrec_check_arguments(nestrec_program "${arg_UNPARSED_ARGUMENTS}")
  # `nestrec` is the program's name, and target names share one space with the libraries'.
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE ${arg_DEPS})
  nestrec_configure_target(${name} DEPS ${arg_DEPS})
endfunction()

function(nestrec_proto_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "GRPC" "" "PROTOS;DEPS")
  nestrec_check_arguments(nestrec_proto_library "${arg_UNPARSED_ARGUMENTS}")
  set(proto_root "${PROJECT_SOURCE_DIR}/proto")
  set(out_root "${PROJECT_BINARY_DIR}/generated")
  file(MAKE_DIRECTORY "${out_root}")
  set(generated "")
  foreach(proto IN LISTS arg_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    set(outputs "${out_root}/${stem}.pb.cc" "${out_root}/${stem}.pb.h")
    set(grpc_flags "")
    if(arg_GRPC)
      list(APPEND outputs "${out_root}/${stem}.grpc.pb.cc" "${out_root}/${stem}.grpc.pb.h")
      set(grpc_flags "--grpc_out=${out_root}" "--plugin=protoc-gen-grpc=${NESTREC_GRPC_PLUGIN}")
    endif()
    list(TRANSFORM arg_PROTOS PREPEND "${proto_root}/" OUTPUT_VARIABLE all_protos)
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND "${NESTREC_PROTOC}" "--proto_path=${proto_root}" "--cpp_out=${out_root}" ${grpc_flags}
              "${proto_root}/${proto}"
      DEPENDS ${all_protos}
      COMMENT "Generating ${proto}"
      VERBATIM)
    list(APPEND generated ${outputs})
  endforeach()
  set(target nestrec_${name})
  add_library(${target} STATIC ${generated})
  set_property(TARGET ${target} PROPERTY CXX_CLANG_TIDY "")
  target_include_directories(${target} SYSTEM PUBLIC "${out_root}")
  target_link_libraries(${target} PUBLIC nestrec::protobuf ${arg_DEPS})
  if(arg_GRPC)
    target_link_libraries(${target} PUBLIC nestrec::grpc)
  endif()
  add_library(nestrec::${name} ALIAS ${target})
endfunction()

function(nestrec_test name)
  if(NOT NESTREC_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 1 arg "SLOW;WHOLE;SERIAL;NO_TSAN" "TIMEOUT" "DEPS;LABELS")
  if(arg_NO_TSAN AND NESTREC_SANITIZE STREQUAL "thread")
    return()
  endif()
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gmock GTest::gtest GTest::gmock_main)
  nestrec_configure_target(${name} DEPS ${arg_DEPS})
  # Where tests find their input files and the program that they start.
  target_compile_definitions(${name} PRIVATE
    "NESTREC_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"" "NESTREC_BINARY_DIR=\"${PROJECT_BINARY_DIR}\"")

  set(timeout 60)
  if(arg_SLOW)
    list(APPEND arg_LABELS slow)
    set(timeout 900)
  elseif(arg_WHOLE)
    set(timeout 180)
  endif()
  if(arg_TIMEOUT)
    set(timeout ${arg_TIMEOUT})
  endif()
  if(NESTREC_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
    math(EXPR timeout "${timeout} * 10")
  endif()

  set(serial FALSE)
  if(arg_SERIAL)
    set(serial TRUE)
  endif()

  if(arg_WHOLE)
    add_test(NAME ${name} COMMAND ${name} --gtest_brief=1 WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(${name} PROPERTIES
      TIMEOUT ${timeout} RUN_SERIAL ${serial} LABELS "${arg_LABELS}")
  else()
    include(GoogleTest)
    gtest_discover_tests(${name}
      DISCOVERY_MODE PRE_TEST
      DISCOVERY_TIMEOUT 120
      TEST_PREFIX "${name}."
      WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
      PROPERTIES TIMEOUT ${timeout} RUN_SERIAL ${serial})
    # gtest_discover_tests cannot pass a list such as LABELS on, so ctest reads it from a file of its own.
    if(arg_LABELS)
      set(labels_file "${CMAKE_CURRENT_BINARY_DIR}/${name}_labels.cmake")
      file(CONFIGURE OUTPUT "${labels_file}" @ONLY CONTENT
        "if(@name@_TESTS)\n  set_tests_properties(\${@name@_TESTS} PROPERTIES LABELS \"@arg_LABELS@\")\nendif()\n")
      set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${labels_file}")
    endif()
  endif()
endfunction()

function(nestrec_check_arguments function unparsed)
  if(unparsed)
    message(FATAL_ERROR "${function}: unknown arguments: ${unparsed}")
  endif()
endfunction()

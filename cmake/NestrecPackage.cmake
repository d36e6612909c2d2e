# `make package`: two Debian packages and a tarball, by CPack.
#
#   nestrec-server   nestrec-serve (no libtorch) and its systemd unit
#   nestrec          the whole program
#
# Their dependencies are what dpkg-shlibdeps finds, and OpenBLAS by name: it finds libopenblas0, whose first alternative keeps
# threads of its own beside OpenMP's (tools/setup.sh avoids it as well). The tarball has both programs, the
# unit with its settings, and in usr/share/doc/*/packages the names of the packages that each program needs.
include(GNUInstallDirs)

install(TARGETS nestrec-serve RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT server)
install(FILES deploy/systemd/nestrec-server.service DESTINATION lib/systemd/system COMPONENT server)
# Beside usr, wherever that is made: of the tarball in its root, never on the machine that packs it.
install(CODE "
  string(REGEX REPLACE \"/usr$\" \"\" root \"\${CMAKE_INSTALL_PREFIX}\")
  file(INSTALL DESTINATION \"\${root}/etc/default\" TYPE FILE RENAME nestrec-server
    FILES \"${PROJECT_SOURCE_DIR}/deploy/systemd/nestrec-server.default\")" COMPONENT server)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/nestrec-server RENAME copyright COMPONENT server)
install(FILES CHANGELOG.md docs/operations.md docs/sessions.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/nestrec-server COMPONENT server)

install(TARGETS nestrec RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/nestrec RENAME copyright COMPONENT program)
install(FILES CHANGELOG.md README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/nestrec COMPONENT program)

# What has to be installed beside a program from the tarball.
function(nestrec_list_packages target component folder)
  install(CODE "
    set(list \"${CMAKE_CURRENT_BINARY_DIR}/${target}.packages/packages\")
    file(MAKE_DIRECTORY \"${CMAKE_CURRENT_BINARY_DIR}/${target}.packages\")
    execute_process(COMMAND \"${PROJECT_SOURCE_DIR}/tools/runtime_packages.sh\" \"$<TARGET_FILE:${target}>\"
      OUTPUT_FILE \"\${list}\" ERROR_VARIABLE why RESULT_VARIABLE failed)
    if(failed)
      message(WARNING \"${target}: no list of the packages that it needs: \${why}\")
    else()
      file(INSTALL DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/doc/${folder}\" TYPE FILE FILES \"\${list}\")
    endif()" COMPONENT ${component})
endfunction()
nestrec_list_packages(nestrec-serve server nestrec-server)
nestrec_list_packages(nestrec program nestrec)

set(CPACK_PACKAGE_NAME nestrec)
set(CPACK_PACKAGE_VENDOR "nestrec")
set(CPACK_PACKAGE_CONTACT "The nestrec developers <nestrec@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL server program)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS libopenblas0-openmp)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_SERVER_PACKAGE_NAME nestrec-server)
set(CPACK_DEBIAN_SERVER_PACKAGE_CONTROL_EXTRA "${PROJECT_SOURCE_DIR}/deploy/systemd/conffiles")
set(CPACK_COMPONENT_SERVER_DESCRIPTION "Serves one nested recommendation model at every width, over gRPC")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME nestrec)
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "Prepares data, trains, evaluates and serves nested recommendation models")

# One archive, whose root is a folder that names the version.
set(CPACK_ARCHIVE_COMPONENT_INSTALL OFF)
set(CPACK_PACKAGE_FILE_NAME "nestrec-${PROJECT_VERSION}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_INCLUDE_TOPLEVEL_DIRECTORY ON)
include(CPack)

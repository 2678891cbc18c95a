# cmake --install: library, header, find_package(lora4j) and pkg-config.

include_guard(GLOBAL)
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

install(TARGETS lora4j EXPORT lora4j LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/lora4j" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/lora4j")
install(EXPORT lora4j NAMESPACE lora4j:: FILE lora4j-targets.cmake DESTINATION "${package_dir}")
configure_package_config_file("${LORA4J_CMAKE_DIR}/lora4j-config.cmake.in" lora4j-config.cmake
                              INSTALL_DESTINATION "${package_dir}")
# While the ABI is 0.x, a minor version may change it.
write_basic_package_version_file(lora4j-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/lora4j-config.cmake" "${PROJECT_BINARY_DIR}/lora4j-config-version.cmake"
        DESTINATION "${package_dir}")

configure_file("${LORA4J_CMAKE_DIR}/lora4j.pc.in" lora4j.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/lora4j.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

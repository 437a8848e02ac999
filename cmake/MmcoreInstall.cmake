# Headers, libraries and the CMake package. In a wheel all of it lies inside the Python package.
install(TARGETS mmcore_core mmcore_kernels EXPORT mmcoreTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT dev
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(DIRECTORY cpp/include/mmcore DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
set(mmcore_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mmcore)
install(EXPORT mmcoreTargets NAMESPACE mmcore:: DESTINATION ${mmcore_config_dir} COMPONENT dev)
configure_package_config_file(cmake/mmcoreConfig.cmake.in mmcoreConfig.cmake INSTALL_DESTINATION ${mmcore_config_dir})
write_basic_package_version_file(mmcoreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mmcoreConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/mmcoreConfigVersion.cmake
  DESTINATION ${mmcore_config_dir} COMPONENT dev)

# Headers, libraries, the CMake package and pkg-config files. In a wheel all of it lies inside the Python package. The
# tree may be moved afterwards: every place is relative to the file that names it.
set(mmcore_components core kernels)
set(mmcore_requires_core "")
set(mmcore_requires_kernels "mmcore-core")
set(mmcore_says_core "Engine of a multimodal LLM service: scheduler, paged KV cache, prefix and encoder caches")
set(mmcore_says_kernels "Kernels of multimodal LLMs: paged attention, norms, rotary embedding, sampling")
if(TARGET mmcore_native)
  list(APPEND mmcore_components native)
  set(mmcore_requires_native "mmcore-core, mmcore-kernels")
  set(mmcore_says_native "Llama and LLaVA models in C++, with their tokenizer and image processor")
endif()
list(TRANSFORM mmcore_components PREPEND mmcore_ OUTPUT_VARIABLE mmcore_targets)

# All that is installed, for builds that want nothing else.
add_custom_target(mmcore_package DEPENDS ${mmcore_targets})

install(TARGETS ${mmcore_targets} EXPORT mmcoreTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT dev
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(DIRECTORY cpp/include/mmcore DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)

# What the C++ compiler links by itself and a C compiler does not.
set(mmcore_cxx_runtime ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_DUPLICATES mmcore_cxx_runtime)
list(FILTER mmcore_cxx_runtime INCLUDE REGEX "^(stdc\\+\\+|c\\+\\+|c\\+\\+abi|m)$")

set(mmcore_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mmcore)
install(EXPORT mmcoreTargets NAMESPACE mmcore:: DESTINATION ${mmcore_config_dir} COMPONENT dev)
configure_package_config_file(cmake/mmcoreConfig.cmake.in mmcoreConfig.cmake INSTALL_DESTINATION ${mmcore_config_dir})
write_basic_package_version_file(mmcoreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mmcoreConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/mmcoreConfigVersion.cmake
  DESTINATION ${mmcore_config_dir} COMPONENT dev)

if(IS_ABSOLUTE ${CMAKE_INSTALL_LIBDIR} OR IS_ABSOLUTE ${CMAKE_INSTALL_INCLUDEDIR})
  set(mmcore_pc_prefix ${CMAKE_INSTALL_PREFIX})
  set(mmcore_pc_libdir ${CMAKE_INSTALL_FULL_LIBDIR})
  set(mmcore_pc_includedir ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
  file(RELATIVE_PATH mmcore_pc_up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" mmcore_pc_up "${mmcore_pc_up}")
  set(mmcore_pc_prefix "\${pcfiledir}/${mmcore_pc_up}")
  set(mmcore_pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(mmcore_pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(mmcore_pc_cflags "-I\${includedir}")
set(mmcore_pc_static_runtime "")
if(NOT BUILD_SHARED_LIBS)
  string(APPEND mmcore_pc_cflags " -DMMCORE_STATIC")
  list(TRANSFORM mmcore_cxx_runtime PREPEND -l OUTPUT_VARIABLE mmcore_pc_static_runtime)
  list(APPEND mmcore_pc_static_runtime -pthread)
  list(JOIN mmcore_pc_static_runtime " " mmcore_pc_static_runtime)
endif()
foreach(component IN LISTS mmcore_components)
  set(mmcore_pc_description "${mmcore_says_${component}}")
  set(mmcore_pc_requires "${mmcore_requires_${component}}")
  set(mmcore_pc_runtime "")
  if(component STREQUAL "core")
    set(mmcore_pc_runtime "${mmcore_pc_static_runtime}")
  elseif(component STREQUAL "kernels" AND mmcore_with_cuda AND NOT BUILD_SHARED_LIBS)
    set(mmcore_pc_runtime "-L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -ldl -lrt")
  endif()
  configure_file(cmake/mmcore.pc.in mmcore-${component}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mmcore-${component}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
    COMPONENT dev)
endforeach()

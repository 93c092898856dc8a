# The ONNX Runtime adapter: a library of its own, beside dpmrt.
set(ONNXRUNTIME_INCLUDE "" CACHE PATH "The folder of onnxruntime_c_api.h")
set(ONNXRUNTIME_LIBRARY "" CACHE FILEPATH "The library of ONNX Runtime")
if(NOT ONNXRUNTIME_INCLUDE OR NOT ONNXRUNTIME_LIBRARY)
  find_package(onnxruntime QUIET CONFIG)
endif()
if(TARGET onnxruntime::onnxruntime)
  set(DPMRT_ONNXRUNTIME_LIBRARY onnxruntime::onnxruntime)
elseif(EXISTS "${ONNXRUNTIME_INCLUDE}/onnxruntime_c_api.h" AND EXISTS "${ONNXRUNTIME_LIBRARY}")
  set(DPMRT_ONNXRUNTIME_LIBRARY ${ONNXRUNTIME_LIBRARY})
else()
  message(FATAL_ERROR "ONNX Runtime is not found. Set ONNXRUNTIME_INCLUDE to the folder of onnxruntime_c_api.h and "
    "ONNXRUNTIME_LIBRARY to its library, or CMAKE_PREFIX_PATH to where its CMake package is.")
endif()

add_library(dpmrt_onnxruntime
  src/adapters/network.cpp src/adapters/numbers.cpp src/adapters/onnxruntime/call.cpp
  src/adapters/onnxruntime/capi.cpp src/adapters/onnxruntime/network.cpp)
add_library(dpmrt::onnxruntime ALIAS dpmrt_onnxruntime)
target_link_libraries(dpmrt_onnxruntime PUBLIC dpmrt PRIVATE ${DPMRT_ONNXRUNTIME_LIBRARY} $<BUILD_INTERFACE:dpmrt_strict>)
if(ONNXRUNTIME_INCLUDE)
  target_include_directories(dpmrt_onnxruntime SYSTEM PRIVATE ${ONNXRUNTIME_INCLUDE})
endif()
target_compile_definitions(dpmrt_onnxruntime PRIVATE DPMRT_BUILD)
set_target_properties(dpmrt_onnxruntime PROPERTIES
  CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON POSITION_INDEPENDENT_CODE ON EXPORT_NAME onnxruntime
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
if(BUILD_SHARED_LIBS AND UNIX AND NOT APPLE)
  target_link_options(dpmrt_onnxruntime PRIVATE -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/cmake/dpmrt.map)
endif()
install(TARGETS dpmrt_onnxruntime EXPORT dpmrtTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

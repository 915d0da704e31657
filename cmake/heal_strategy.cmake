# heal_add_strategy(<name> SOURCES … [LINK …] [TEST …]): builds <name>.so, which exports nothing but the entry function.
#   SOURCES  C++20 (heal/sdk.hpp) or C (heal/abi.h)
#   LINK     further libraries; they are found again at run time by their system paths only
#   TEST     sources of a test program <name>_test, linked with GoogleTest if it is found, run by ctest; it may include the
#            strategy's own source and heal/sdk_fake.hpp
# The library lands in HEAL_PLUGINS_OUTPUT (default: <build folder>/plugins).
function(heal_add_strategy name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;TEST" ${ARGN})
  if(NOT ARG_SOURCES)
    message(FATAL_ERROR "heal_add_strategy(${name}): SOURCES is missing")
  endif()
  set(output ${CMAKE_BINARY_DIR}/plugins)
  if(DEFINED HEAL_PLUGINS_OUTPUT)
    set(output ${HEAL_PLUGINS_OUTPUT})
  endif()
  # In heald's own tree the version script lies with the headers, installed it lies beside this file.
  set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/heal.version)
  if(NOT EXISTS ${script})
    set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../plugin-api/heal.version)
  endif()
  add_library(${name} MODULE ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE heal::plugin_api ${ARG_LINK})
  target_compile_features(${name} PRIVATE cxx_std_20)
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".so" CXX_VISIBILITY_PRESET hidden C_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON POSITION_INDEPENDENT_CODE ON LIBRARY_OUTPUT_DIRECTORY ${output}
    LINK_DEPENDS ${script})
  target_link_options(${name} PRIVATE -Wl,--version-script=${script})
  # A missing symbol is found here, not at loading. Sanitized builds leave the run time's symbols to the host.
  if(NOT HEAL_SANITIZE AND NOT HEAL_TSAN)
    target_link_options(${name} PRIVATE -Wl,-z,defs -Wl,-z,now)
  endif()
  if(ARG_TEST)
    find_package(GTest QUIET)
    add_executable(${name}_test ${ARG_TEST})
    target_link_libraries(${name}_test PRIVATE heal::plugin_api ${ARG_LINK})
    target_compile_features(${name}_test PRIVATE cxx_std_20)
    if(GTest_FOUND)
      target_link_libraries(${name}_test PRIVATE GTest::gtest GTest::gtest_main)
    endif()
    enable_testing()
    add_test(NAME ${name}_test COMMAND ${name}_test)
  endif()
endfunction()

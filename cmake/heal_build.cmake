# Compiler, warnings, sanitizers, and heal_library(): what every target of this project shares.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

find_program(CCACHE ccache)
if(CCACHE)
  # Without these words ccache leaves out every file with a precompiled header.
  set(heal_ccache ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${heal_ccache})
  set(CMAKE_C_COMPILER_LAUNCHER ${heal_ccache})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast>
  -fvisibility=hidden -ffunction-sections -fdata-sections)
add_link_options(-Wl,--gc-sections)
# For all, since some libraries ask for it: it defines a macro, and a precompiled header without that is not used.
add_compile_options(-pthread)
# The same source gives the same object on every machine: no build path in it.
add_compile_options(-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=)
# g++ collects its garbage less often: a sixth of a clean build's time, for a sixth more memory (docs/adr/0011-build-time.md).
add_compile_options($<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-heapsize=1048576>)
if(HEAL_WERROR)
  add_compile_options(-Werror)
endif()
if(HEAL_SANITIZE)
  # The instrumented code confuses the warning about uninitialised variables.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
    # What clang 14 puts before each function for it can't stand before the parts of a coroutine.
    $<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>)
  # Half of the compiler's time for what AddressSanitizer finds too (docs/adr/0011-build-time.md); the fuzzer's build has them.
  if(NOT HEAL_FUZZ)
    add_compile_options(-fno-sanitize=null,alignment,object-size,vptr)
  endif()
  add_link_options(-fsanitize=address,undefined)
endif()
if(HEAL_TSAN)
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
endif()
if(NOT HEAL_SANITIZE AND NOT HEAL_TSAN AND CMAKE_BUILD_TYPE STREQUAL "Release")
  add_compile_options(-fstack-protector-strong $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro -Wl,-z,now)
endif()
add_compile_definitions(_GLIBCXX_ASSERTIONS HEAL_VERSION="${PROJECT_VERSION}")
if(HEAL_FAULTS)
  add_compile_definitions(HEAL_FAULTS=1)
endif()

# Debian 12 ships Boost 1.81 beside the default 1.74; the two must not be mixed.
find_package(Boost 1.81.0 EXACT CONFIG REQUIRED COMPONENTS json url)
add_compile_definitions(BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED BOOST_BEAST_SEPARATE_COMPILATION
                        BOOST_DLL_USE_STD_FS)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(PkgConfig REQUIRED)

# One that doesn't fit is slower, not wrong.
set(CMAKE_PCH_WARN_INVALID OFF)
# Precompiled headers, one for each kind of target: half of a clean build is reading the same headers again and again.
function(heal_precompile name header)
  file(WRITE ${CMAKE_BINARY_DIR}/pch/${name}.cpp.in "// Nothing: the target exists for its precompiled header.\n")
  configure_file(${CMAKE_BINARY_DIR}/pch/${name}.cpp.in ${CMAKE_BINARY_DIR}/pch/${name}.cpp COPYONLY)
  add_library(${name} OBJECT ${CMAKE_BINARY_DIR}/pch/${name}.cpp)
  target_link_libraries(${name} PRIVATE Boost::headers Boost::json fmt::fmt Threads::Threads ${ARGN})
  target_precompile_headers(${name} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch/${header})
  target_compile_options(${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()
heal_precompile(heal_pch base.hpp)
heal_precompile(heal_pch_asio asio.hpp)

# heal_together(<target> <files>...): with HEAL_UNITY each argument, a list of files separated by spaces, is one translation unit.
function(heal_together target)
  if(NOT HEAL_UNITY)
    return()
  endif()
  set(number 0)
  foreach(files ${ARGN})
    separate_arguments(files)
    math(EXPR number "${number} + 1")
    set_source_files_properties(${files} PROPERTIES UNITY_GROUP ${target}_${number})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # What each file keeps to itself meets there; the optimised build compiles each alone and has the warnings.
  target_compile_options(${target} PRIVATE -Wno-shadow $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endfunction()

# heal_library(<folder> [ASIO] SOURCES ... LINK ... [TOGETHER ...]): the library heal::<folder> of one layer folder.
function(heal_library name)
  cmake_parse_arguments(ARG "ASIO" "" "SOURCES;LINK;PRIVATE_LINK;TOGETHER" ${ARGN})
  add_library(heal_${name} STATIC ${ARG_SOURCES})
  add_library(heal::${name} ALIAS heal_${name})
  target_include_directories(heal_${name} PUBLIC ${CMAKE_SOURCE_DIR}/engine)
  target_link_libraries(heal_${name} PUBLIC ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK})
  target_compile_options(heal_${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
  if(ARG_ASIO)
    target_precompile_headers(heal_${name} REUSE_FROM heal_pch_asio)
    # g++ 12 takes the coroutine frames of Asio for mismatched (GCC bug 109224).
    target_compile_options(heal_${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-mismatched-new-delete>)
  else()
    target_precompile_headers(heal_${name} REUSE_FROM heal_pch)
  endif()
  heal_together(heal_${name} ${ARG_TOGETHER})
endfunction()

# tests/*_test.cpp: one executable and one ctest for each file, results as XML in <build>/test-reports.

include_guard(GLOBAL)

# For another machine there is no package of GoogleTest, but Debian's has the sources.
if(CMAKE_CROSSCOMPILING)
  set(LORA4J_GTEST_SOURCES /usr/src/googletest CACHE PATH "GoogleTest's sources, for a cross build")
  if(EXISTS "${LORA4J_GTEST_SOURCES}/CMakeLists.txt")
    set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
    set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
    add_subdirectory("${LORA4J_GTEST_SOURCES}" googletest EXCLUDE_FROM_ALL)
  endif()
else()
  find_package(GTest QUIET)
endif()
if(NOT TARGET GTest::gtest)
  message(FATAL_ERROR "GoogleTest is missing: install libgtest-dev (Debian, Ubuntu) or gtest-devel (Fedora), "
                      "or configure with -DLORA4J_BUILD_TESTS=OFF")
endif()

# The same objects as in the shared library, with the internal symbols in reach.
get_property(objects GLOBAL PROPERTY LORA4J_OBJECTS)
add_library(lora4j_static STATIC EXCLUDE_FROM_ALL ${objects})
set_target_properties(lora4j_static PROPERTIES LINKER_LANGUAGE C)
target_include_directories(lora4j_static PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
target_link_libraries(lora4j_static PUBLIC lora4j_options Threads::Threads m ${CMAKE_DL_LIBS})

# Under ThreadSanitizer (preset tsan) only tests whose names match are built and run. fuzz_test sends every operation over several
# threads; a few cases of each are enough there.
set(LORA4J_THREAD_TESTS "queue|attention|adamw|fuzz")

function(lora4j_add_test source)
  get_filename_component(name "${source}" NAME_WE)
  if(LORA4J_SANITIZE STREQUAL "thread" AND NOT name MATCHES "${LORA4J_THREAD_TESTS}")
    return()
  endif()
  add_executable(${name} "${source}")
  target_compile_features(${name} PRIVATE cxx_std_17)
  target_compile_definitions(${name} PRIVATE L4J_TEST_DATA="${LORA4J_ROOT}/test-data")
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE lora4j_static GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1
                                "--gtest_output=xml:${PROJECT_BINARY_DIR}/test-reports/${name}.xml")
  set_tests_properties(${name} PROPERTIES TIMEOUT 900)
  if(TARGET lora4j_cuda)
    set_tests_properties(${name} PROPERTIES ENVIRONMENT LORA4J_CUDA_LIBRARY=$<TARGET_FILE:lora4j_cuda>)
  endif()
  if(LORA4J_SANITIZE STREQUAL "thread")
    set_tests_properties(${name} PROPERTIES ENVIRONMENT L4J_FUZZ_CASES=8)
  endif()
endfunction()

# lora4j_add_consumer_test(<how>): builds tests/consumer against a staged install, as a user of the library would.
function(lora4j_add_consumer_test how)
  add_test(NAME consumer_${how}
    COMMAND ${CMAKE_COMMAND} -DHOW=${how} -DBUILD=${PROJECT_BINARY_DIR} -DSOURCE=${PROJECT_SOURCE_DIR}/tests/consumer
            -DWORK=${PROJECT_BINARY_DIR}/consumer/${how} -DCC=${CMAKE_C_COMPILER} -DGENERATOR=${CMAKE_GENERATOR}
            -DLIBDIR=${CMAKE_INSTALL_LIBDIR} "-DEMULATOR=${CMAKE_CROSSCOMPILING_EMULATOR}" -P ${LORA4J_CMAKE_DIR}/RunConsumer.cmake)
endfunction()

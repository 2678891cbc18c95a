# liblora4j_cuda.so, where nvcc is: one object for each .cu file. CMake's own CUDA language is not used: it wants to find a whole toolkit,
# and the compiler from the package index is a part of one.

include_guard(GLOBAL)

set(LORA4J_CUDA "AUTO" CACHE STRING "Build liblora4j_cuda: AUTO (where nvcc is), ON or OFF")
set(LORA4J_CUDA_OLDEST 12.4)
# Ampere's machine code and PTX for every newer card, and Hopper's own instructions.
set(LORA4J_CUDA_ARCHITECTURES "arch=compute_80,code=[sm_80,compute_80];arch=compute_90a,code=sm_90a"
    CACHE STRING "What nvcc's -gencode is given")
set(LORA4J_CUDA_FOUND OFF)
if(LORA4J_CUDA STREQUAL "OFF")
  return()
endif()

# CUDACXX, PATH, the usual folder, and what cmake/install-nvcc.sh has put into native/build.
find_program(LORA4J_NVCC NAMES "$ENV{CUDACXX}" nvcc
             HINTS "${PROJECT_SOURCE_DIR}/build/nvcc/bin" PATHS /usr/local/cuda/bin DOC "The CUDA compiler")
if(NOT LORA4J_NVCC)
  if(LORA4J_CUDA STREQUAL "ON")
    message(FATAL_ERROR "nvcc is missing: put it on PATH or into CUDACXX, run cmake/install-nvcc.sh, or set LORA4J_CUDA=OFF")
  endif()
  message(STATUS "liblora4j_cuda is left out: no nvcc on PATH, in CUDACXX or from cmake/install-nvcc.sh")
  return()
endif()
execute_process(COMMAND ${LORA4J_NVCC} --version OUTPUT_VARIABLE version RESULT_VARIABLE status)
string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" version "${version}")
set(version "${CMAKE_MATCH_1}")
if(NOT status EQUAL 0 OR version VERSION_LESS LORA4J_CUDA_OLDEST)
  message(FATAL_ERROR "${LORA4J_NVCC} is of release '${version}', expected ${LORA4J_CUDA_OLDEST} or newer; or set LORA4J_CUDA=OFF")
endif()

get_filename_component(nvcc_dir "${LORA4J_NVCC}" REALPATH)
get_filename_component(nvcc_dir "${nvcc_dir}" DIRECTORY)
find_library(LORA4J_CUDART NAMES libcudart_static.a PATHS "${nvcc_dir}/../lib64" "${nvcc_dir}/../lib"
             "${nvcc_dir}/../targets/x86_64-linux/lib" NO_DEFAULT_PATH)
if(NOT LORA4J_CUDART)
  message(FATAL_ERROR "libcudart_static.a is missing beside ${LORA4J_NVCC}; or set LORA4J_CUDA=OFF")
endif()
message(STATUS "liblora4j_cuda: nvcc ${version}, ${LORA4J_CUDA_ARCHITECTURES}")
set(LORA4J_CUDA_FOUND ON)
enable_language(CXX)

set(flags -std=c++20 -O3
  # A fused multiply-add happens where the source says so and nowhere else, as on the CPU.
  -fmad=false
  -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra
  "-DL4J_VERSION=\"${PROJECT_VERSION}\"" "-I${PROJECT_SOURCE_DIR}/src" "-I${PROJECT_SOURCE_DIR}/include")
foreach(architecture IN LISTS LORA4J_CUDA_ARCHITECTURES)
  list(APPEND flags "-gencode=${architecture}")
endforeach()
if(LORA4J_WERROR)
  list(APPEND flags -Werror=all-warnings)
endif()

file(GLOB cuda CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cuda/*.cu")
set(objects)
foreach(source IN LISTS cuda)
  get_filename_component(name "${source}" NAME_WE)
  set(object "${PROJECT_BINARY_DIR}/cuda/${name}.o")
  add_custom_command(OUTPUT "${object}"
    COMMAND ${LORA4J_NVCC} -ccbin ${CMAKE_CXX_COMPILER} ${flags} -MD -MF "${object}.d" -c "${source}" -o "${object}"
    MAIN_DEPENDENCY "${source}" DEPFILE "${object}.d" COMMENT "nvcc ${name}.cu" VERBATIM)
  list(APPEND objects "${object}")
endforeach()
file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/cuda")
set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)

add_library(lora4j_cuda SHARED ${objects} "${PROJECT_SOURCE_DIR}/src/api/error.c")
target_compile_definitions(lora4j_cuda PRIVATE L4J_BUILDING "L4J_VERSION=\"${PROJECT_VERSION}\"")
target_include_directories(lora4j_cuda PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/include")
set_target_properties(lora4j_cuda PROPERTIES LINKER_LANGUAGE CXX LINK_DEPENDS "${LORA4J_CMAKE_DIR}/lora4j_cuda.map")
target_link_libraries(lora4j_cuda PRIVATE lora4j_options "${LORA4J_CUDART}" Threads::Threads dl rt)
# Nothing of C++'s library is used beyond what the compiler puts in; it must not be missed on the machine that runs this.
target_link_options(lora4j_cuda PRIVATE "-Wl,--version-script=${LORA4J_CMAKE_DIR}/lora4j_cuda.map" -Wl,--build-id=none
                    -static-libstdc++ -static-libgcc -Wl,--no-undefined)

# What every file of the library is compiled with.

include_guard(GLOBAL)

option(LORA4J_WERROR "Treat compiler warnings as errors" OFF)

add_library(lora4j_options INTERFACE)
target_compile_features(lora4j_options INTERFACE c_std_11)
target_compile_options(lora4j_options INTERFACE
  -Wall -Wextra
  $<$<BOOL:${LORA4J_WERROR}>:-Werror>
  # Results are the same bits on every tier: the compiler may neither fuse nor reorder; FMA only where the source says so.
  -ffp-contract=off
  # Lets sqrtf be one instruction; no result changes.
  -fno-math-errno
  # No build path in the binary.
  "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=native"
  "-ffile-prefix-map=${PROJECT_BINARY_DIR}=build"
  -pthread)
target_compile_definitions(lora4j_options INTERFACE _GNU_SOURCE)

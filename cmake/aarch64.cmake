# Toolchain of the preset aarch64: Debian's cross compiler; tests run under qemu-user. Packages: g++-aarch64-linux-gnu,
# qemu-user, and googletest for the sources that the tests' own GoogleTest is built from.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Libraries, headers and packages of the target only, programs of the build machine only.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(LORA4J_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(LORA4J_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${LORA4J_QEMU} -L /usr/aarch64-linux-gnu)
endif()

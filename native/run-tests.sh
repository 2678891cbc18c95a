#!/bin/sh
# Builds and runs the C tests: as shipped, under AddressSanitizer + UndefinedBehaviorSanitizer, and the threaded ones
# under ThreadSanitizer. Maven calls it in its test phase; by hand: native/run-tests.sh [WERROR: ON|OFF] [presets…]
set -eu
cd "$(dirname "$0")"
. ../.mvn/toolchain.sh
lora4j_use_ninja

werror=${1:-OFF}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- release asan-ubsan tsan
for preset; do
  echo "native tests: $preset"
  cmake --preset "$preset" --log-level=WARNING -DLORA4J_BUILD_TESTS=ON -DLORA4J_WERROR="$werror"
  cmake --build --preset "$preset"
  rm -rf "build/$preset/test-reports"
  ctest --preset "$preset" --output-junit "$PWD/build/$preset/test-reports/ctest.xml"
done

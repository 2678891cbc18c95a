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

run() {
  # Warnings are judged in the build that is shipped: what sanitizers insert makes the compiler see paths that cannot be.
  [ "$1" = release ] && strict=$werror || strict=OFF
  rm -rf "build/$1/test-reports"
  cmake --preset "$1" --log-level=WARNING -DLORA4J_BUILD_TESTS=ON -DLORA4J_WERROR="$strict" &&
    cmake --build --preset "$1" &&
    ctest --preset "$1" --output-junit "$PWD/build/$1/test-reports/ctest.xml"
}

# Every preset runs, so that one report tells all that is wrong.
failed=
for preset; do
  echo "native tests: $preset"
  run "$preset" || failed="$failed $preset"
done
[ -z "$failed" ] || {
  echo "native tests failed:$failed" >&2
  exit 1
}

#!/bin/sh
# Builds and runs the C tests: as shipped, under AddressSanitizer + UndefinedBehaviorSanitizer, and the threaded ones
# under ThreadSanitizer; as shipped for linux-aarch64, under qemu-user, where the cross compiler is installed.
# Maven calls it in its test phase; by hand: native/run-tests.sh [WERROR: ON|OFF] [presets…]
set -eu
cd "$(dirname "$0")"
. ../.mvn/toolchain.sh
lora4j_use_ninja

werror=${1:-OFF}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- release asan-ubsan tsan aarch64

run() {
  # Warnings are judged in the build that is shipped: what sanitizers insert makes the compiler see paths that cannot be.
  case $1 in
  release | aarch64) strict=$werror ;;
  *) strict=OFF ;;
  esac
  rm -rf "build/$1/test-reports"
  cmake --preset "$1" --log-level=WARNING -DLORA4J_BUILD_TESTS=ON -DLORA4J_WERROR="$strict" &&
    cmake --build --preset "$1" &&
    ctest --preset "$1" --output-junit "$PWD/build/$1/test-reports/ctest.xml"
}

# What the preset aarch64 needs and this machine does not have.
missing_for_aarch64() {
  command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 || echo g++-aarch64-linux-gnu
  command -v qemu-aarch64 >/dev/null 2>&1 || command -v qemu-aarch64-static >/dev/null 2>&1 || echo qemu-user
  [ -f /usr/src/googletest/CMakeLists.txt ] || echo googletest
}

# Leaves a report that says so: what does not run must be seen.
skip() {
  echo "native tests: $1 skipped: $2"
  mkdir -p "build/$1/test-reports"
  cat >"build/$1/test-reports/ctest.xml" <<END
<testsuite name="$1" tests="1" skipped="1">
  <testcase classname="$1" name="all"><skipped message="$2"/></testcase>
</testsuite>
END
}

# Every preset runs, so that one report tells all that is wrong.
failed=
for preset; do
  if [ "$preset" = aarch64 ]; then
    missing=$(missing_for_aarch64 | tr '\n' ' ')
    if [ -n "$missing" ]; then
      rm -rf build/aarch64/test-reports
      skip aarch64 "to test linux-aarch64 here, install: $missing"
      continue
    fi
  fi
  echo "native tests: $preset"
  run "$preset" || failed="$failed $preset"
done
[ -z "$failed" ] || {
  echo "native tests failed:$failed" >&2
  exit 1
}

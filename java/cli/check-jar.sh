#!/bin/sh
# Opens the executable jar as a user would: from another folder, without options, with an empty cache for the native
# library. It must run silently on standard error (no warning of the JVM) and load the library out of itself.
#   java/cli/check-jar.sh <java> <lora4j.jar>
set -eu
java=$1 jar=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS

status=0
XDG_CACHE_HOME=$work/cache "$java" -jar "$jar" doctor --json >out 2>err || status=$?
fail() {
  echo "$jar: $1" >&2
  cat out err >&2
  exit 1
}
[ $status = 0 ] || fail "doctor ended with exit status $status"
[ ! -s err ] || fail "doctor wrote to standard error"
grep -q "\"native_library\" *: *\"$work/cache/lora4j/native/" out || fail "the native library did not come from the jar"
echo "$jar: runs on its own"

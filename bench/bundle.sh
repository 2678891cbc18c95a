#!/usr/bin/env bash
# Packs lora4j with a small Java runtime for hosts that have neither Java nor a network: a GPU server, a many-core CPU.
#   bench/bundle.sh OUT        builds what is missing and writes OUT/{lora4j,jre/,lora4j.jar,bench/,native/,test-data/}
# There: OUT/lora4j train …, python3 OUT/bench/step/step_bench.py --lora4j OUT/lora4j,
# cmake -S OUT/native … for the native tests and benchmarks.
set -euo pipefail

[ $# = 1 ] || { sed -n '2,5p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)

. "$root/.mvn/toolchain.sh"
lora4j_find_jdk || exit 1
(cd "$root" && ./mvnw -q -B -Dquick -pl java/cli -am package)

rm -rf "$out"/{jre,bench,native,cmake,test-data}
# What lora4j and its tokenizer load; without java.desktop, so without loss curves. No locale data, no debug information.
"$JAVA_HOME/bin/jlink" --add-modules java.base,java.logging,java.management,java.xml,jdk.management,jdk.unsupported,jdk.zipfs \
  --strip-debug --no-header-files --no-man-pages --compress=zip-9 --output "$out/jre"
cp "$root/java/cli/target/lora4j.jar" "$out"
mkdir -p "$out"/{bench,native,cmake,test-data}
cp -r "$root"/bench/{native,step,interop} "$out/bench"
cp -r "$root"/native/{CMakeLists.txt,include,src,tests} "$out/native"
cp -r "$root"/cmake/. "$out/cmake"
cp -r "$root/test-data/tiny-llama" "$out/test-data"
cat >"$out/lora4j" <<'LAUNCHER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LC_ALL=C.UTF-8; export LC_ALL; exec "$here/jre/bin/java" --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow -Dlora4j.home="$here" \
  ${LORA4J_JAVA_OPTS:-} -jar "$here/lora4j.jar" "$@"
LAUNCHER
chmod +x "$out/lora4j"
du -sh "$out" | cut -f1

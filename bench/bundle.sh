#!/usr/bin/env bash
# Packs lora4j and its benchmarks for hosts that have neither Java, nor a network, nor the libraries of the peers.
#   bench/bundle.sh OUT [java] [kernels]      builds what is missing and writes into OUT (default: both parts)
#     java      lora4j with a small Java runtime: OUT/{lora4j,jre/,lora4j.jar}; there: OUT/lora4j train …
#     kernels   kernel_bench with OpenBLAS and oneDNN: OUT/{kernel_bench,lib/}
#   and with each bench/ (its Python), native/, cmake/ and the data that they need. There, with a Python that has torch:
#     python3 OUT/bench/run.py --kernel_bench OUT/kernel_bench --lora4j OUT/lora4j --out results
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,7p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- java kernels

pack_java() {
  . "$root/.mvn/toolchain.sh"
  lora4j_find_jdk || exit 1
  (cd "$root" && ./mvnw -q -B -Dquick -pl java/cli -am package)
  rm -rf "$out/jre"
  # What lora4j and its tokenizer load; without java.desktop, so without loss curves. No locale data, no debug information.
  "$JAVA_HOME/bin/jlink" --add-modules java.base,java.logging,java.management,java.xml,jdk.management,jdk.unsupported,jdk.zipfs \
    --strip-debug --no-header-files --no-man-pages --compress=zip-9 --output "$out/jre"
  cp "$root/java/cli/target/lora4j.jar" "$out"
  cat >"$out/lora4j" <<'LAUNCHER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LC_ALL=C.UTF-8; export LC_ALL; exec "$here/jre/bin/java" --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow -Dlora4j.home="$here" \
  ${LORA4J_JAVA_OPTS:-} -jar "$here/lora4j.jar" "$@"
LAUNCHER
  chmod +x "$out/lora4j"
}

pack_kernels() {
  local program
  program=$(python3 "$root/bench/run.py" --build)
  rm -rf "$out/lib"
  mkdir -p "$out/lib"
  cp "$program" "$out/lib"
  # All that it loads but the C and C++ libraries, which are older here than there.
  ldd "$program" | awk '$3 ~ /^\// && $1 !~ /^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl)\.so/ { print $3 }' | xargs -I{} cp -L {} "$out/lib"
  cat >"$out/kernel_bench" <<'LAUNCHER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/lib/kernel_bench" "$@"
LAUNCHER
  chmod +x "$out/kernel_bench"
}

for part; do
  case $part in
  java | kernels) "pack_$part" ;;
  *) echo "bench/bundle.sh: no part is called '$part'; there are java and kernels" >&2; exit 2 ;;
  esac
done
rm -rf "$out"/{bench,native,cmake,test-data}
mkdir -p "$out"/{bench,native,cmake,test-data}
cp -r "$root"/bench/{run.py,suite,native,interop} "$out/bench"
cp -r "$root"/native/{CMakeLists.txt,include,src,tests} "$out/native"
cp -r "$root"/cmake/. "$out/cmake"
cp -r "$root/test-data/tiny-llama" "$out/test-data"
du -sh "$out" | cut -f1

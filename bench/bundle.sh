#!/usr/bin/env bash
# Packs lora4j, its tests and its benchmarks for hosts that have neither Java, Maven, a network, nor the libraries of the peers.
#   bench/bundle.sh OUT [java] [tests] [gpu] [kernels]   builds what is missing, writes into the folder OUT, packs it as OUT.tar.xz
#     java      lora4j with a small Java runtime: OUT/{lora4j,jre/,classes/}; there: OUT/lora4j train …
#     tests     needs java; the C tests, the Java tests and what runs them: OUT/{run-tests,tests/,test-data/}
#     gpu       needs java; the benchmarks of the GPU, from C++, through Java and of the peers: OUT/{run-bench,gpu_*,lib/,bench/,jmh/}
#     kernels   the benchmarks of the CPU, with OpenBLAS and oneDNN: OUT/{run-bench,kernel_bench,lib/,bench/}
# Without a part: java, tests and gpu. Where nvcc is (cmake/install-nvcc.sh), classes/ holds liblora4j_cuda.so as the jars do. On the host:
#     OUT/run-tests --help        OUT/run-bench --help
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,10p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- java tests gpu
for part; do
  case $part in
  java | tests | gpu | kernels) ;;
  *) echo "bench/bundle.sh: no part is called '$part'; there are java, tests, gpu and kernels" >&2; exit 2 ;;
  esac
done
. "$root/.mvn/toolchain.sh"
lora4j_find_jdk || exit 1
lora4j_use_ninja
platform=linux-$(uname -m)

maven() {
  (cd "$root" && ./mvnw -q -B -Dquick -Dmaven.test.skip=false -Dnative.cuda=AUTO "$@")
}

pack_java() {
  maven -pl java/cli,java/interop-javacpp -am package
  rm -rf "$out"/{jre,classes}
  # What lora4j, its tokenizer and the tests load; without java.desktop, so without loss curves. No locale data, no debug
  # information; not compressed, because the archive is.
  "$JAVA_HOME/bin/jlink" --add-modules java.base,java.logging,java.management,java.xml,jdk.management,jdk.unsupported,jdk.zipfs \
    --strip-debug --no-header-files --no-man-pages --compress=zip-0 --output "$out/jre"
  mkdir "$out/classes"
  (cd "$out/classes" && "$JAVA_HOME/bin/jar" xf "$root/java/cli/target/lora4j.jar")
  find "$out/classes/native/lib" -mindepth 1 -maxdepth 1 ! -name "$platform" -exec rm -r {} +
  find "$out/classes/com/sun/jna" -name 'libjnidispatch.*' ! -path "*/linux-$(uname -m | tr _ -)/*" -delete
  cat >"$out/lora4j" <<'LAUNCHER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LC_ALL=C.UTF-8; export LC_ALL; exec "$here/jre/bin/java" --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow -Dlora4j.home="$here" \
  ${LORA4J_JAVA_OPTS:-} -cp "$here/classes" io.lora4j.cli.Main "$@"
LAUNCHER
  chmod +x "$out/lora4j"
}

# For models of random weights.
copy_tokenizer() {
  mkdir -p "$out/test-data/tiny-llama"
  cp "$root"/test-data/tiny-llama/{tokenizer.json,tokenizer_config.json,chat_template.jinja} "$out/test-data/tiny-llama"
}

pack_tests() {
  rm -rf "$out"/{tests,test-data,run-tests,native}
  mkdir -p "$out"/tests/{jars,kernels,interop-javacpp} "$out/native"
  cmake -S "$root/native" --preset release --log-level=WARNING -DLORA4J_BUILD_TESTS=ON
  cmake --build "$root/native/build/release"
  cp "$root"/native/build/release/tests/*_test "$out/tests"
  strip "$out"/tests/*_test
  for module in kernels interop-javacpp; do
    cp -r "$root/java/$module/target/test-classes/." "$out/tests/$module"
  done
  cp -r "$root/java/interop-javacpp/target/classes/." "$out/tests/interop-javacpp"
  # JUnit's launcher and engines in one jar, the rest of what the tests need, and of JavaCPP's CUDA preset what they load.
  maven dependency:copy -N -Dartifact=org.junit.platform:junit-platform-console-standalone:1.14.4 -DoutputDirectory="$out/tests/jars"
  maven -pl java/interop-javacpp -am package dependency:copy-dependencies -DincludeGroupIds=org.assertj,org.bytedeco -DoutputDirectory="$out/tests/jars"
  slim_preset "$out/tests/jars"
  cp -r "$root/native/include" "$out/native"
  mkdir "$out/test-data"
  cp -r "$root/test-data/quant" "$out/test-data"
  copy_tokenizer
  mkdir -p "$out/bench"
  cp -r "$root"/bench/{suite,interop} "$out/bench"
  cp "$root/bench/host/run-tests" "$out"
}

# Of JavaCPP's CUDA preset what is called here.
slim_preset() {
  zip -q -d "$1"/cuda-*-"$platform".jar '*npp*' '*nv*' '*cudnn*' '*cufft*' '*cusolver*' '*cusparse*' '*curand*'
}

# bench TARGET...: builds targets of bench/native and copies them with what starts them and the Python beside.
bench() {
  local folder program
  folder=$(dirname "$(python3 "$root/bench/run.py" --build)")
  cmake --build "$folder/.." --target "$@"
  mkdir -p "$out"/{lib,bench}
  for program; do
    cp "$folder/$program" "$out/lib"
    # All that it loads but the C and C++ libraries, which are older here than there.
    ldd "$folder/$program" | awk '$3 ~ /^\// && $1 !~ /^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl)\.so/ { print $3 }' | xargs -I{} cp -L {} "$out/lib"
    cat >"$out/$program" <<'LAUNCHER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/lib/$(basename "$0")" "$@"
LAUNCHER
    chmod +x "$out/$program"
  done
  cp -r "$root"/bench/{*.py,suite,interop} "$out/bench"
  copy_tokenizer
  cp "$root/bench/host/run-bench" "$out"
}

pack_gpu() {
  rm -rf "$out/jmh"
  bench gpu_lora gpu_segments gpu_attention gpu_quant
  maven -pl bench/jmh -am package dependency:copy-dependencies -DincludeArtifactIds=jmh-core,jopt-simple,commons-math3,javacpp,cuda -DoutputDirectory="$out/jmh/jars"
  slim_preset "$out/jmh/jars"
  cp -r "$root"/{bench/jmh,java/interop-javacpp}/target/classes/. "$out/jmh"
}

pack_kernels() {
  bench kernel_bench
}

rm -rf "$out"/{lib,bench}
for part; do
  "pack_$part"
done
find "$out" -name __pycache__ -prune -exec rm -r {} +
python3 -c "import pathlib, sys; sys.path.insert(0, '$root/bench'); from suite import machine; print(machine.commit(pathlib.Path('$root')))" >"$out/commit"
# The test programs hold the same library: a window of 64 MiB sees that.
XZ_OPT=-9 tar -C "$(dirname "$out")" -cJf "$out.tar.xz" "$(basename "$out")"
du -sh --apparent-size "$out" "$out.tar.xz"

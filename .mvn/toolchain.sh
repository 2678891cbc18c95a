# Finds the tools that the build needs and names the package of any that is missing. POSIX shell.
#   . .mvn/toolchain.sh; lora4j_find_jdk       exports JAVA_HOME of a JDK >= 25 or fails
#   sh .mvn/toolchain.sh native [ON|OFF]       checks for CMake, a build tool and compilers (ON: for the tests as well)

lora4j_jdk_version() {
  # The major version of the JDK in folder $1, from its release file; nothing when it is not a JDK.
  [ -x "$1/bin/javac" ] && [ -f "$1/release" ] || return 0
  sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$1/release"
}

lora4j_jdk_candidates() {
  [ -n "${JAVA_HOME:-}" ] && echo "$JAVA_HOME"
  lora4j_javac=$(command -v javac 2>/dev/null) && dirname "$(dirname "$(readlink -f "$lora4j_javac")")"
  for lora4j_dir in /usr/lib/jvm/* /usr/java/* /opt/java/* /opt/jdk* "$HOME"/.sdkman/candidates/java/* "$HOME"/.jdks/*; do
    [ -d "$lora4j_dir" ] && echo "$lora4j_dir"
  done
}

lora4j_find_jdk() {
  lora4j_found=$(lora4j_jdk_candidates | while IFS= read -r lora4j_dir; do
    lora4j_version=$(lora4j_jdk_version "$lora4j_dir")
    if [ "${lora4j_version:-0}" -ge 25 ]; then
      echo "$lora4j_dir"
      break
    fi
  done)
  if [ -z "$lora4j_found" ]; then
    echo "lora4j needs a JDK >= 25; none found in JAVA_HOME (${JAVA_HOME:-not set}), PATH, /usr/lib/jvm, ~/.sdkman, ~/.jdks." >&2
    echo "Install one and try again: openjdk-25-jdk (Debian 13, Ubuntu 25.10 and later), java-25-openjdk-devel (Fedora)," >&2
    echo "temurin-25-jdk (any Linux, from https://adoptium.net), or 'sdk install java 25-tem'; or set JAVA_HOME." >&2
    return 1
  fi
  JAVA_HOME=$lora4j_found
  export JAVA_HOME
}

lora4j_need() {
  # $1 = what, $2 = Debian package, $3 = Fedora package, the rest: commands, any of which will do.
  lora4j_what=$1 lora4j_deb=$2 lora4j_rpm=$3
  shift 3
  for lora4j_command; do
    command -v "$lora4j_command" >/dev/null 2>&1 && return 0
  done
  echo "lora4j needs $lora4j_what ($*); install it with 'apt install $lora4j_deb' or 'dnf install $lora4j_rpm'." >&2
  return 1
}

lora4j_check_native() {
  # $1 = ON: the tests are built too.
  lora4j_status=0
  lora4j_need "CMake >= 3.22" cmake cmake cmake || lora4j_status=1
  lora4j_need "a build tool" ninja-build ninja-build ninja make || lora4j_status=1
  lora4j_need "a C compiler" gcc gcc cc gcc clang || lora4j_status=1
  if [ "${1:-OFF}" = ON ]; then
    lora4j_need "a C++ compiler for the tests" g++ gcc-c++ c++ g++ clang++ || lora4j_status=1
    lora4j_need "pkg-config for the tests" pkg-config pkgconf pkg-config pkgconf || lora4j_status=1
  fi
  return $lora4j_status
}

lora4j_use_ninja() {
  # Ninja where there is one; CMake's own default otherwise. A build folder keeps the choice of its first configuration.
  if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null 2>&1; then
    CMAKE_GENERATOR=Ninja
    export CMAKE_GENERATOR
  fi
  CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
  export CMAKE_BUILD_PARALLEL_LEVEL
}

case ${0##*/} in
toolchain.sh)
  case ${1:-} in
  native) lora4j_check_native "${2:-OFF}" ;;
  *)
    echo "usage: sh toolchain.sh native [ON|OFF]" >&2
    exit 2
    ;;
  esac
  ;;
esac

#!/bin/sh
# Puts CUDA's compiler into native/build/nvcc, from the Python package index (some 200 MB), where there is none on this machine: so the
# CUDA library is compiled wherever there is a network, and tests elsewhere say that it was left out.
#   cmake/install-nvcc.sh [VERSION]      default 13.0
set -eu
cd "$(dirname "$0")/../native"
version=${1:-13.0}
say() { echo "nvcc: $1"; }

for found in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc build/nvcc/bin/nvcc; do
  [ -n "$found" ] && [ -x "$found" ] && "$found" --version >/dev/null 2>&1 && say "$found is there" && exit 0
done
skip() {
  say "the CUDA library is left out: $1"
  exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "this machine is $(uname -m), and the compiler's package is for x86_64"
command -v python3 >/dev/null 2>&1 || skip "no nvcc and no python3 to install it with"
rm -rf build/nvcc build/nvcc-python
mkdir -p build
# Without ensurepip the venv has no pip of its own; the system's can install into it.
python3 -m venv build/nvcc-python >/dev/null 2>&1 || python3 -m venv --without-pip build/nvcc-python >/dev/null 2>&1 || skip "no nvcc, and python3 makes no venv"
pip="build/nvcc-python/bin/python -m pip"
$pip --version >/dev/null 2>&1 || pip="python3 -m pip --python build/nvcc-python/bin/python"
$pip install -q --disable-pip-version-check "nvidia-cuda-nvcc==$version.*" "nvidia-cuda-crt==$version.*" \
  "nvidia-nvvm==$version.*" "nvidia-cuda-runtime==$version.*" "nvidia-cuda-cccl==$version.*" ||
  skip "no nvcc, and it cannot be had from the package index"
# Lists what the built library holds; of its own release, because the first ones are not in the index.
$pip install -q --disable-pip-version-check --no-deps "nvidia-cuda-cuobjdump==13.*" || say "cuobjdump cannot be had"
root=$(echo build/nvcc-python/lib/python3*/site-packages/nvidia/cu*)
[ -x "$root/bin/nvcc" ] || skip "the packages have no nvcc in $root"
ln -s "$PWD/$root" build/nvcc
build/nvcc/bin/nvcc --version | tail -1

#!/bin/sh
# Checks (or with --fix applies) the C and C++ format of native/ and bench/native against .clang-format.
set -eu
cd "$(dirname "$0")/.."

pinned=14
tool=
for candidate in clang-format-$pinned clang-format; do
  if command -v $candidate >/dev/null 2>&1; then
    tool=$candidate
    break
  fi
done
if [ -z "$tool" ]; then
  echo "The format check needs clang-format $pinned: install it with 'apt install clang-format-$pinned', 'dnf install" >&2
  echo "clang-tools-extra' or 'pip install clang-format==$pinned.0.6', or build with -Dquick (no checks)." >&2
  exit 1
fi
found=$($tool --version | sed 's/.*version \([0-9]*\).*/\1/')

files() {
  find native $([ -d bench/native ] && echo bench/native) -name build -prune -o -type f \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0
}
if [ "${1:-}" = --fix ]; then
  files | xargs -0 "$tool" -i
  exit 0
fi
if files | xargs -0 "$tool" --dry-run --Werror; then
  exit 0
fi
if [ "$found" != $pinned ]; then
  echo "WARNING: this is clang-format $found; the project's format is that of version $pinned, so the differences above may" >&2
  echo "be the version's. Not a failure; install clang-format-$pinned for the exact check." >&2
  exit 0
fi
echo "Format the files above with: native/check-format.sh --fix" >&2
exit 1

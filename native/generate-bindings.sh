#!/bin/sh
# Writes java/kernels/.../generated anew from lora4j.h with the jextract on PATH (mvnw -Pbindings calls this).
set -eu
cd "$(dirname "$0")/.."

pinned=$(sed -n 's/^# jextract version: //p' native/jextract.args)
if ! command -v jextract >/dev/null 2>&1; then
  echo "jextract is not on PATH; the bindings are made with: $pinned (https://github.com/openjdk/jextract)" >&2
  exit 1
fi
echo "bindings: pinned  $pinned"
echo "bindings: found   $(jextract --version 2>&1 | head -1)"
sources=java/kernels/src/main/java
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
jextract @native/jextract.args --output "$work" native/include/lora4j/lora4j.h
# jextract asks the class loader for symbols or dlopen for a fixed name; the library of the jar is neither.
generated=$work/io/lora4j/kernels/generated
sed -i '/SYMBOL_LOOKUP = SymbolLookup.loaderLookup()$/{N;s/SymbolLookup.loaderLookup().*/io.lora4j.kernels.symbols.NativeSymbols.LOOKUP;/}' \
  "$generated/LoraNative.java"
grep -q 'SYMBOL_LOOKUP = io.lora4j.kernels.symbols.NativeSymbols.LOOKUP;' "$generated/LoraNative.java"
# Swapped in whole, so that files of things that are gone from the header go too.
rm -rf "$sources/io/lora4j/kernels/generated"
mv "$generated" "$sources/io/lora4j/kernels/generated"

#!/bin/sh
# Fuzzes a reader of untrusted files with Jazzer:
#   java/formats/fuzz.sh [safetensors|gguf|quantized|shardIndex|modelConfig|adapterConfig|tokenizer] [duration, such as 10m]
# The first finding ends it, and its input lies in java/formats/crash-…: mend what it found and put the file into test-data/fuzz/<reader>,
# where every build tries it again. The inputs that reach new code are kept in java/formats/.cifuzz-corpus for the next time.
set -eu
cd "$(dirname "$0")/../.."
# Configs may hold regular expressions, and these are run, within limits: for Jazzer a finding by itself.
JAZZER_FUZZ=1 exec ./mvnw -B -pl java/formats -am test -Dnative.tests=OFF -Dnative.skipTests=true -Dnative.cuda=OFF \
  -Dtest="ReaderFuzzTest#${1:-gguf}" -Dsurefire.failIfNoSpecifiedTests=false -Djazzer.max_duration="${2:-10m}" -Dtest.heap=512m \
  -Djazzer.disabled_hooks=com.code_intelligence.jazzer.sanitizers.RegexInjection

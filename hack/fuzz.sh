#!/usr/bin/env bash
# Fuzzes the admission endpoint for SECONDS_EACH (default 60). What is found new is kept in the cache for the next run; a
# body that breaks something lands in fuzz/artifacts, and belongs into fuzz/corpus/admission once it is mended.
#
# The toolchain is the one of rust-toolchain.toml: libFuzzer needs coverage counters, which stable has. The sanitizers,
# which it has not, look for what `unsafe_code = "forbid"` rules out.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
found=${VNP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/virtualnodepool}/fuzz/admission
fuzz=$(hack/tool.sh cargo-fuzz)
mkdir -p "$found"
"$fuzz" run admission --fuzz-dir fuzz --sanitizer none --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" \
  "$found" fuzz/corpus/admission -- \
  -dict=fuzz/admission.dict -max_total_time="${SECONDS_EACH:-60}" -max_len=8192 -timeout=5 -rss_limit_mb=1024 \
  -print_final_stats=1

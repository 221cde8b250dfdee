#!/usr/bin/env bash
# Builds the release binary, statically linked, into the folder given (default target/static), and prints its size.
# `make release` and the Dockerfile both come through here, so what is measured is what is shipped.
#
# The gnu target with crt-static, not musl: glibc's allocator holds up under many threads, and since 2.34 its resolver
# is part of libc.a, so names resolve in an image that holds nothing but the binary.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-target/static}
host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
  *-linux-gnu) ;;
  *) echo "release: $host cannot link glibc statically; build the container image instead (docker build .)" >&2; exit 1 ;;
esac
# With --target the flags reach the binary only, not build scripts and proc macros, which must stay dynamic.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
  cargo build --release --locked --package vnp-operator --bin vnp-operator --target "$host"
built=${CARGO_TARGET_DIR:-target}/$host/release/vnp-operator
if readelf --dynamic "$built" | grep NEEDED; then
  echo "release: the binary needs the shared libraries above and would not start in an empty image" >&2
  exit 1
fi
mkdir -p "$out"
cp "$built" "$out/vnp-operator"
bytes=$(wc -c < "$out/vnp-operator")
echo "release: $out/vnp-operator, static, $bytes bytes ($(awk -v b="$bytes" 'BEGIN { printf "%.1f MiB", b / 1048576 }'))"

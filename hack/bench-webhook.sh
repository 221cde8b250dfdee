#!/usr/bin/env bash
# What the pod webhook costs, on a real API server, with the binary as it is shipped. Arguments: see
# `hack/bench-webhook.sh --help`. docs/benchmarks.md has the numbers of one run.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
e2e/control-plane/build.sh > /dev/null
cargo build --release --locked --package vnp-operator --package vnp-e2e --bin vnp-operator --bin bench_webhook
built=${CARGO_TARGET_DIR:-target}/release
VNP_OPERATOR_BIN=$(realpath "$built/vnp-operator") exec "$built/bench_webhook" "$@"

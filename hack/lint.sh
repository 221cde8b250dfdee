#!/usr/bin/env bash
# Every check that needs no running cluster. A tool that can't be had is named and passed over, unless STRICT is set
# (the hosted workflow sets it). KUBECTL names the kubectl that renders config/.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
failed=()
skipped=()

check() { # <name> <command...>
  local name=$1
  shift
  echo "lint: $name"
  "$@" || failed+=("$name")
}

with() { # <tool> <arguments...>
  local tool=$1 path
  shift
  echo "lint: $tool"
  if path=$(hack/tool.sh "$tool"); then "$path" "$@" || failed+=("$tool"); else skipped+=("$tool"); fi
}

# The image builds with the toolchain that everything is tested with, named by its tag.
same_toolchain() {
  local channel
  channel=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
  grep -q "^FROM rust:$channel-" Dockerfile || { echo "Dockerfile does not build with Rust $channel of rust-toolchain.toml"; return 1; }
}

# What people copy from the README is the sample that a test applies.
same_sample() {
  diff <(awk '/^```/ { inside = 0; next } /^apiVersion:/ { inside = 1 } inside' README.md) \
    <(sed -n '/^apiVersion:/,$p' config/samples/minimal.yaml) ||
    { echo "README.md (<) shows another pool than config/samples/minimal.yaml (>)"; return 1; }
}

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard | xargs grep -slE '^#!.*\b(ba)?sh$')

check fmt cargo fmt --all --check
check "fmt of fuzz" cargo fmt --manifest-path fuzz/Cargo.toml --check
check clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
with cargo-deny --log-level error --locked check bans licenses sources
with shellcheck "${scripts[@]}"
with hadolint Dockerfile
check toolchain same_toolchain
check sample same_sample
with actionlint .github/workflows/ci.yml
check "trials of build.sh" e2e/control-plane/build_test.sh
if command -v "${KUBECTL:-kubectl}" > /dev/null; then
  check config config/check.sh
else
  skipped+=(config)
  echo "lint: ${KUBECTL:-kubectl} is not there to render config/; make test builds one"
fi

if [ "${#skipped[@]}" -gt 0 ]; then
  echo "lint: NOT CHECKED: ${skipped[*]}"
  [ -z "${STRICT:-}" ] || failed+=("${skipped[@]}")
fi
[ "${#failed[@]}" = 0 ] || { echo "lint: FAILED: ${failed[*]}"; exit 1; }
echo "lint: ok"

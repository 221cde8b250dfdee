#!/usr/bin/env bash
# Trials of build.sh with a stand-in for Go, so that they take seconds: what heals, who waits, what is refused.
set -Eeuo pipefail

script=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/build.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'echo "FAIL build.sh: unexpected end at line $LINENO"; cat "$root/err"' ERR
unset KUBE_BIN_DIR KUBEBUILDER_ASSETS KUBE_RELEASE_URL KUBE_RELEASE_SHA512

# The stand-in writes down what it was asked to build and makes a program that names itself.
mkdir "$root/bin"
cat > "$root/bin/go" << 'EOF'
#!/usr/bin/env bash
case $1 in
  env) printf 'linux\namd64\n' ;;
  list) seq 3 ;;
  build)
    while [ "$1" != -o ]; do shift; done
    sleep "${BUILD_SECONDS:-0}"
    [ "${BUILD_FAILS:-}" != "$(basename "$2")" ] || { echo "no space left" >&2; exit 1; }
    echo "$3" >> "$BUILD_LOG"
    printf '#!/bin/sh\necho Kubernetes v1.37.2\n# %s\n' "$3" > "$2"
    ;;
esac
EOF
chmod +x "$root/bin/go"
export PATH="$root/bin:$PATH" BUILD_LOG="$root/built"

failures=0
check() { # <what must hold> <command...>
  local what=$1
  shift
  if "$@"; then echo "ok   build.sh: $what"; else
    echo "FAIL build.sh: $what"
    sed 's/^/     | /' "$root/err"
    failures=$((failures + 1))
  fi
}
fresh() { VNP_CACHE_DIR=$(mktemp -d "$root/cache.XXXX"); export VNP_CACHE_DIR; : > "$BUILD_LOG"; }
run() { dir=$("$script" "$@" 2> "$root/err" | tail -1); }
refused() { if run; then echo "exit code 0" >> "$root/err"; fi; }
built() { [ "$(sed 's|.*/||' "$BUILD_LOG" | sort | tr '\n' ' ')" = "${*:+$* }" ]; }
says() { grep -qF -- "$1" "$root/err" && ! grep -qx "exit code 0" "$root/err"; }
runs() { local name; for name in "$@"; do "$dir/$name" > /dev/null || return 1; done; }
five=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl)

fresh
run
check "a first run builds the five programs" built kube-apiserver kube-controller-manager kube-scheduler kubectl v3
check "and prints the folder that holds them" runs "${five[@]}"
: > "$BUILD_LOG"
run
check "a second run builds nothing" built
run --with-virtual-kubelet
check "virtual-kubelet is built only when asked for" built virtual-kubelet

: > "$BUILD_LOG"
printf 'x' >> "$dir/kubectl"
run
check "a changed binary is built again, alone" built kubectl
: > "$BUILD_LOG"
rm "$dir/kube-scheduler" "$dir/etcd.sha256"
run
check "a missing binary and one without checksum are built again" built kube-scheduler v3

fresh
BUILD_FAILS=.kubectl.part refused
check "a failed build fails the run" says "no space left"
: > "$BUILD_LOG"
run
check "and the next run builds only what is missing" built kubectl

fresh
export BUILD_SECONDS=0.3
"$script" > "$root/one" 2> "$root/err-one" &
one=$!
"$script" > "$root/two" 2> "$root/err-two" &
two=$!
both=0
wait "$one" || both=1
wait "$two" || both=1
unset BUILD_SECONDS
cat "$root/err-one" "$root/err-two" > "$root/err"
check "two runs at once both succeed" [ "$both" = 0 ]
check "and only one of them builds" built kube-apiserver kube-controller-manager kube-scheduler kubectl v3
check "while the other says that it waits" says "another run builds"
check "and both name the same folder" cmp -s "$root/one" "$root/two"

given=$root/given
mkdir "$given"
for name in "${five[@]}"; do printf '#!/bin/sh\necho Kubernetes v1.37.2\n# given\n' > "$given/$name"; done
chmod +x "$given"/*
: > "$BUILD_LOG"
KUBE_BIN_DIR=$given run
check "KUBE_BIN_DIR is used as it is" [ "$dir" = "$given" ]
check "and nothing is built" built
KUBE_BIN_DIR=$given run --with-virtual-kubelet
check "with a folder given only virtual-kubelet is built" built virtual-kubelet
check "and stands in one folder with those given" runs "${five[@]}" virtual-kubelet
check "which are the given ones" cmp -s "$dir/kubectl" "$given/kubectl"
: > "$BUILD_LOG"
run
check "and the shared set is untouched" built
rm "$given/etcd"
KUBEBUILDER_ASSETS=$given refused
check "a folder that lacks one is refused by its name" says "KUBEBUILDER_ASSETS=$given has no executable etcd"
KUBE_BIN_DIR=$root/nowhere refused
check "a folder that is not there is refused" says "KUBE_BIN_DIR=$root/nowhere is not a folder"

release=$root/kubernetes-server-linux-amd64.tar.gz
mkdir -p "$root/kubernetes/server/bin"
cp "$given"/kube* "$root/kubernetes/server/bin"
tar -czf "$release" -C "$root" kubernetes
export KUBE_RELEASE_URL=file://$release
fresh
sha512sum "$release" | cut -d' ' -f1 > "$release.sha512"
run
check "an official release saves all builds but etcd's" built v3
check "and its programs run" runs "${five[@]}"
fresh
KUBE_RELEASE_SHA512=$(printf '%0128d' 0) refused
check "a wrong checksum is refused" says "does not have the SHA-512 checksum"
check "and nothing of the archive is installed" [ -z "$(find "$VNP_CACHE_DIR" -name 'kube*' -type f)" ]
fresh
rm "$release.sha512"
refused
check "a release without checksum is refused" says "cannot fetch $KUBE_RELEASE_URL.sha512"

[ "$failures" = 0 ] || { echo "$failures trials of build.sh failed"; exit 1; }

#!/usr/bin/env bash
# Builds the control plane that the tests and the demo run: etcd, kube-apiserver, kube-controller-manager,
# kube-scheduler, kubectl and, with --with-virtual-kubelet, the real virtual-kubelet with its mock provider.
# The last line on standard output is the folder that holds the binaries; progress goes to standard error.
#
#   KUBE_BIN_DIR, KUBEBUILDER_ASSETS   a folder with the binaries: nothing is built
#   KUBE_RELEASE_URL                   kubernetes-server-<os>-<arch>.tar.gz of an official release, instead of building
#   KUBE_RELEASE_SHA512                its checksum; default: what <KUBE_RELEASE_URL>.sha512 says
#   VNP_CACHE_DIR                      where to build; default ${XDG_CACHE_HOME:-~/.cache}/virtualnodepool
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubernetes_version=v1.37.2
kubernetes_binaries=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
all=("${kubernetes_binaries[@]}" etcd)
with_virtual_kubelet=
case "${1:-}" in
  "") ;;
  --with-virtual-kubelet) with_virtual_kubelet=1; all+=(virtual-kubelet) ;;
  *) echo "usage: $0 [--with-virtual-kubelet]" >&2; exit 2 ;;
esac

say() { printf 'control plane: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

for given in KUBE_BIN_DIR KUBEBUILDER_ASSETS; do
  dir=${!given:-}
  [ -n "$dir" ] || continue
  for name in "${kubernetes_binaries[@]}" etcd; do
    [ -x "$dir/$name" ] || die "$given=$dir has no executable $name; add it, or unset $given to have all of them built"
  done
  if [ -z "$with_virtual_kubelet" ] || [ -x "$dir/virtual-kubelet" ]; then
    echo "$dir"
    exit 0
  fi
  given_dir=$dir
  break
done

key=$({ cat "$here"/*/go.mod "$here"/*/go.sum "${BASH_SOURCE[0]}"; go env GOOS GOARCH; echo "${KUBE_RELEASE_URL:-}"; } | sha256sum | cut -c1-16)
cache=${VNP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/virtualnodepool}/control-plane
dir=$cache/$key
mkdir -p "$dir"

# A binary counts only with the checksum that was written after it was complete.
intact() { [ -x "$dir/$1" ] && [ -f "$dir/$1.sha256" ] && (cd "$dir" && sha256sum --check --status "$1.sha256"); }

keep() { # <finished file> <name>
  chmod 0755 "$1"
  rm -f "$dir/$2.sha256"
  mv -f "$1" "$dir/$2"
  (cd "$dir" && sha256sum "$2" > "$2.sha256.part" && mv -f "$2.sha256.part" "$2.sha256")
}

compile() { # <module folder> <package> <name> <ldflags>
  local started total out="$dir/.$3.part"
  started=$(date +%s)
  total=$(cd "$here/$1" && GOFLAGS=-mod=mod go list -deps "$2" | wc -l)
  say "$3: compiling up to $total packages"
  # -v names each package as it is compiled, which is the progress; packages in Go's own cache are skipped.
  (cd "$here/$1" && CGO_ENABLED=0 GOFLAGS=-mod=mod go build -v -trimpath -ldflags "-s -w $4" -o "$out" "$2") 2>&1 |
    awk -v name="$3" -v total="$total" '
      /^[a-z0-9._~-]+(\/|$)/ { if (++n % 100 == 0) { printf "control plane: %s: %d of %d packages\n", name, n, total; fflush() } next }
      { print; fflush() }' >&2
  keep "$out" "$3"
  say "$3: built in $(($(date +%s) - started)) s"
}

compile_kubernetes() {
  local v=$kubernetes_version minor name
  minor=${v#v1.}; minor=${minor%%.*}
  # kubectl and the servers parse these; without them kubectl refuses the server's version.
  local flags="-X k8s.io/component-base/version.gitVersion=$v -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/client-go/pkg/version.gitVersion=$v"
  for name in "${kubernetes_binaries[@]}"; do
    intact "$name" || compile kubernetes "k8s.io/kubernetes/cmd/$name" "$name" "$flags"
  done
}

unpack_release() {
  local archive=$dir/.release.tar.gz.part sum
  say "fetching $KUBE_RELEASE_URL"
  curl --fail --location --silent --show-error --output "$archive" "$KUBE_RELEASE_URL"
  sum=${KUBE_RELEASE_SHA512:-$(curl --fail --location --silent --show-error "$KUBE_RELEASE_URL.sha512" | cut -d' ' -f1)}
  echo "$sum  $archive" | sha512sum --check --status ||
    { rm -f "$archive"; die "$KUBE_RELEASE_URL does not have checksum $sum; nothing was installed"; }
  for name in "${kubernetes_binaries[@]}"; do
    tar --extract --gzip --to-stdout --file "$archive" "kubernetes/server/bin/$name" > "$dir/.$name.part"
    keep "$dir/.$name.part" "$name"
  done
  rm -f "$archive"
}

complete() { for name in "${all[@]}"; do intact "$name" || return 1; done; }

if [ -n "${given_dir:-}" ]; then
  all=(virtual-kubelet)
fi
if ! complete; then
  # One builder at a time; a second run waits here and then finds everything in place.
  exec 9> "$cache/$key.lock"
  flock --nonblock 9 || { say "another run builds $dir; waiting for it"; flock 9; }
  if ! complete; then
    [ -n "${KUBE_RELEASE_URL:-}" ] || command -v go > /dev/null ||
      die "Go is needed to build it (https://go.dev/dl); or set KUBE_BIN_DIR or KUBE_RELEASE_URL"
    say "building into $dir (about 10 minutes on two cores, once for all clones)"
    if [ -z "${given_dir:-}" ]; then
      intact etcd || compile etcd go.etcd.io/etcd/server/v3 etcd ""
      if [ -n "${KUBE_RELEASE_URL:-}" ]; then unpack_release; else compile_kubernetes; fi
    fi
    if [ -n "$with_virtual_kubelet" ]; then
      intact virtual-kubelet ||
        compile virtual-kubelet github.com/virtual-kubelet/virtual-kubelet/cmd/virtual-kubelet virtual-kubelet ""
    fi
    complete || die "the build finished but $dir is not complete; remove it and try again"
    say "ready"
  fi
fi

if [ -n "${given_dir:-}" ]; then
  for name in "${kubernetes_binaries[@]}" etcd; do ln -sf "$given_dir/$name" "$dir/$name"; done
fi
echo "$dir"

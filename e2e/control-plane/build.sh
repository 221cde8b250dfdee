#!/usr/bin/env bash
# Builds the control plane that the tests and the demo run: etcd, kube-apiserver, kube-controller-manager,
# kube-scheduler, kubectl and, with --with-virtual-kubelet, the real virtual-kubelet with its mock provider.
# The last line on standard output is the folder that holds the binaries; progress goes to standard error.
#
#   KUBE_BIN_DIR, KUBEBUILDER_ASSETS   a folder with the binaries: none of them is built
#   KUBE_RELEASE_URL                   kubernetes-server-<os>-<arch>.tar.gz of an official release, instead of building
#                                      the Kubernetes binaries; etcd, which is not in it, is still built
#   KUBE_RELEASE_SHA512                its checksum; default: what <KUBE_RELEASE_URL>.sha512 says
#   VNP_CACHE_DIR                      where to build; default ${XDG_CACHE_HOME:-~/.cache}/virtualnodepool
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubernetes_version=v1.37.2
kubernetes_binaries=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
control_plane=("${kubernetes_binaries[@]}" etcd)
all=("${control_plane[@]}")
# Committed go.sum files pin every module: a build never edits them, and no go.work around the tree joins in.
export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off
# kubectl and the servers parse these; without them kubectl refuses the server's version.
minor=${kubernetes_version#v1.}
minor=${minor%%.*}
version_flags="-X k8s.io/component-base/version.gitVersion=$kubernetes_version"
version_flags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor"
version_flags+=" -X k8s.io/client-go/pkg/version.gitVersion=$kubernetes_version"
with_virtual_kubelet=
given_dir=
case "${1:-}" in
  "") ;;
  --with-virtual-kubelet) with_virtual_kubelet=1; all+=(virtual-kubelet) ;;
  *) echo "usage: $0 [--with-virtual-kubelet]" >&2; exit 2 ;;
esac

say() { printf 'control plane: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

for given in KUBE_BIN_DIR KUBEBUILDER_ASSETS; do
  [ -n "${!given:-}" ] || continue
  given_dir=$(cd "${!given}" 2> /dev/null && pwd) ||
    die "$given=${!given} is not a folder; correct it, or unset it to have the binaries built"
  for name in "${control_plane[@]}"; do
    [ -x "$given_dir/$name" ] ||
      die "$given=$given_dir has no executable $name; add it, or unset $given to have all of them built"
  done
  version=$("$given_dir/kube-apiserver" --version) || die "$given=$given_dir: kube-apiserver does not run here"
  case $version in
    "Kubernetes v1.$minor."*) ;;
    *) say "$given=$given_dir holds ${version#Kubernetes }; the tests are written for v1.$minor" ;;
  esac
  if [ -z "$with_virtual_kubelet" ] || [ -x "$given_dir/virtual-kubelet" ]; then
    echo "$given_dir"
    exit 0
  fi
  all=(virtual-kubelet)
  break
done

for tool in go flock sha256sum; do
  command -v "$tool" > /dev/null ||
    die "$tool is needed to build (Go: https://go.dev/dl); or set KUBE_BIN_DIR to a folder with ${all[*]}"
done

# The key names what the binaries are made from, so that an edit of this script alone builds nothing anew.
key=$({
  cat "$here"/*/go.mod "$here"/*/go.sum
  echo "$version_flags"
  go env GOOS GOARCH
  echo "${KUBE_RELEASE_URL:-}"
} | sha256sum | cut -c1-16)
cache=${VNP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/virtualnodepool}/control-plane
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
dir=$cache/$key
mkdir -p "$dir"

# A binary counts only with the checksum that was written after it was complete.
intact() { [ -x "$dir/$1" ] && [ -f "$dir/$1.sha256" ] && (cd "$dir" && sha256sum --check --status "$1.sha256"); }

all_intact() { local name; for name in "$@"; do intact "$name" || return 1; done; }

keep() { # <finished file> <name>
  chmod 0755 "$1"
  mv -f "$1" "$dir/$2"
  (cd "$dir" && sha256sum "$2" > "$2.sha256.part" && mv -f "$2.sha256.part" "$2.sha256")
}

compile() { # <module folder> <package> <name> <ldflags>
  local started total out="$dir/.$3.part"
  started=$(date +%s)
  total=$(cd "$here/$1" && go list -deps "$2" | wc -l)
  say "$3: compiling up to $total packages"
  # -v names each package as it is compiled, which is the progress; packages in Go's own cache are skipped.
  (cd "$here/$1" && go build -v -trimpath -ldflags "-s -w $4" -o "$out" "$2") 2>&1 |
    awk -v name="$3" -v total="$total" '
      /^[a-z0-9._~-]+(\/|$)/ { if (++n % 100 == 0) { printf "control plane: %s: %d of %d packages\n", name, n, total; fflush() } next }
      { print; fflush() }' >&2
  keep "$out" "$3"
  say "$3: built in $(($(date +%s) - started)) s"
}

compile_kubernetes() {
  local name
  for name in "${kubernetes_binaries[@]}"; do
    intact "$name" || compile kubernetes "k8s.io/kubernetes/cmd/$name" "$name" "$version_flags"
  done
}

unpack_release() {
  local archive=$dir/.release.tar.gz.part sum=${KUBE_RELEASE_SHA512:-} name
  if all_intact "${kubernetes_binaries[@]}"; then return; fi
  say "fetching $KUBE_RELEASE_URL"
  curl --fail --location --silent --show-error --output "$archive" "$KUBE_RELEASE_URL" ||
    die "cannot fetch KUBE_RELEASE_URL=$KUBE_RELEASE_URL"
  if [ -z "$sum" ]; then
    sum=$(curl --fail --location --silent --show-error "$KUBE_RELEASE_URL.sha512" | cut -d' ' -f1) ||
      die "cannot fetch $KUBE_RELEASE_URL.sha512; set KUBE_RELEASE_SHA512 to the archive's checksum"
  fi
  if ! echo "$sum  $archive" | sha512sum --check --status 2> /dev/null; then
    rm -f "$archive"
    die "$KUBE_RELEASE_URL does not have the SHA-512 checksum '$sum'; nothing was installed"
  fi
  for name in "${kubernetes_binaries[@]}"; do
    tar --extract --gzip --to-stdout --file "$archive" "kubernetes/server/bin/$name" > "$dir/.$name.part" ||
      die "$KUBE_RELEASE_URL has no kubernetes/server/bin/$name; it must be a kubernetes-server archive"
    keep "$dir/.$name.part" "$name"
  done
  rm -f "$archive"
}

if ! all_intact "${all[@]}"; then
  # One builder at a time; a second run waits here and then finds everything in place.
  exec 9> "$cache/$key.lock"
  flock --nonblock 9 || { say "another run builds $dir; waiting for it"; flock 9; }
  if ! all_intact "${all[@]}"; then
    say "building into $dir (about 10 minutes on two cores, once for all clones)"
    if [ -z "$given_dir" ]; then
      intact etcd || compile etcd go.etcd.io/etcd/server/v3 etcd ""
      if [ -n "${KUBE_RELEASE_URL:-}" ]; then unpack_release; else compile_kubernetes; fi
    fi
    if [ -n "$with_virtual_kubelet" ]; then
      intact virtual-kubelet ||
        compile virtual-kubelet github.com/virtual-kubelet/virtual-kubelet/cmd/virtual-kubelet virtual-kubelet ""
    fi
    all_intact "${all[@]}" || die "the build finished but $dir is not complete; remove it and try again"
    say "ready"
  fi
  exec 9>&-
fi

if [ -n "$given_dir" ]; then
  # Own links, in a folder of their own: the built set stays what it is for runs that name no folder.
  linked=$cache/$key-$(echo "$given_dir" | sha256sum | cut -c1-8)
  mkdir -p "$linked"
  for name in "${control_plane[@]}"; do ln -sfn "$given_dir/$name" "$linked/$name"; done
  ln -sfn "$dir/virtual-kubelet" "$linked/virtual-kubelet"
  dir=$linked
fi
echo "$dir"

#!/usr/bin/env bash
# Renders every kustomization and holds the operator's rights to their limits. KUBECTL names the kubectl to use.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
kubectl=${KUBECTL:-kubectl}
failed=0
fail() { echo "config: $*" >&2; failed=1; }

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT

while IFS= read -r file; do
  folder=$(dirname "$file")
  "$kubectl" kustomize "$folder" > "$rendered" || { fail "$folder does not render"; continue; }
  [ -s "$rendered" ] || fail "$folder renders to nothing"
  awk -v folder="$folder" '
    function judge() {
      if (kind !~ /Role$/) return
      if (wildcard) { print "config: " folder ": " kind " " name " has a wildcard; name what it needs"; bad = 1 }
      # The role of the provider is exempt: a virtual kubelet reads the Secrets of the pods it runs.
      if (kind == "ClusterRole" && name ~ /^virtualnodepool/ && reads) {
        print "config: " folder ": ClusterRole " name " reaches " reads " in all namespaces; use a Role"; bad = 1
      }
    }
    function start() { judge(); kind = name = reads = ""; wildcard = 0 }
    /^---$/ { start(); next }
    /^kind: / { kind = $2 }
    /^  name: / { name = $2 }
    /^ *- .\*.$/ { wildcard = 1 }
    /^ *- (secrets|configmaps|statefulsets|serviceaccounts|impersonate|escalate|bind)$/ { reads = $2 }
    END { judge(); exit bad }' "$rendered" >&2 || failed=1
done < <(find . -name kustomization.yaml | sort)

[ "$failed" = 0 ] || exit 1
echo "config: every kustomization renders, no role goes too far"

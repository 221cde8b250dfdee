#!/usr/bin/env bash
# A time that Kubernetes stores and k8s-openapi 0.29 can't read.
#
# metav1.Time of k8s.io/apimachinery v0.35.0 reads and writes 9999-12-31T23:59:59Z, a common word for "never". k8s-openapi
# 0.29.0 keeps times as jiff::Timestamp, whose last second is 9999-12-30T22:00:00Z (jiff 0.2: room for every offset), so
# the same object is refused, and with it the whole list that holds it. One object with such a time in its managedFields
# or in a status stops a watch cache that reads typed objects. k8s-openapi 0.25.0, which keeps times as
# chrono::DateTime, reads it.
#
# Needs: go, cargo, and the two package registries. Exit 0: as described; 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p go rust/src

cat > go/go.mod <<'MOD'
module finding

go 1.25.0

require k8s.io/apimachinery v0.35.0
MOD
cat > go/main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func main() {
	var list struct{ Items []metav1.ObjectMeta }
	text := `{"items":[{"name":"a"},{"name":"b","managedFields":[{"time":"9999-12-31T23:59:59Z"}]}]}`
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		panic(err)
	}
	out, err := json.Marshal(list.Items[1].ManagedFields[0].Time)
	if err != nil {
		panic(err)
	}
	fmt.Println("apimachinery:", string(out))
}
GO

cat > rust/Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
current = { package = "k8s-openapi", version = "=0.29.0", features = ["latest"] }
old = { package = "k8s-openapi", version = "=0.25.0", features = ["v1_33"] }
serde_json = "1"

[workspace]
TOML
cat > rust/src/main.rs <<'RUST'
use current::apimachinery::pkg::apis::meta::v1 as current_meta;
use old::apimachinery::pkg::apis::meta::v1 as old_meta;

fn main() {
    let text = r#"[{"name":"a"},{"name":"b","managedFields":[{"time":"9999-12-31T23:59:59Z"}]}]"#;
    let read = serde_json::from_str::<Vec<current_meta::ObjectMeta>>(text);
    println!("k8s-openapi 0.29: {}", if read.is_ok() { "read" } else { "refused" });
    let read = serde_json::from_str::<Vec<old_meta::ObjectMeta>>(text);
    println!("k8s-openapi 0.25: {}", if read.is_ok() { "read" } else { "refused" });
    let earlier = text.replace("9999-12-31T23:59:59Z", "9999-12-30T22:00:00Z");
    let read = serde_json::from_str::<Vec<current_meta::ObjectMeta>>(&earlier);
    println!("k8s-openapi 0.29, a day before: {}", if read.is_ok() { "read" } else { "refused" });
}
RUST

export GOFLAGS=-mod=mod CARGO_TARGET_DIR="$folder/target"
(cd go && go mod tidy > /dev/null 2>&1 && go run .) > seen
(cd rust && cargo run --quiet) >> seen
cat seen
cat > expected <<'SEEN'
apimachinery: "9999-12-31T23:59:59Z"
k8s-openapi 0.29: refused
k8s-openapi 0.25: read
k8s-openapi 0.29, a day before: read
SEEN
diff expected seen || { echo "the behaviour changed" >&2; exit 1; }
echo "as described"

#!/usr/bin/env bash
# JSON patches that RFC 6902 refuses and the library of kube-apiserver applies.
#
# kube-apiserver 1.37 applies patches of type application/json-patch+json with gopkg.in/evanphx/json-patch.v4. RFC 6902,
# section 4.3, says of "replace" that the target location MUST exist, and section 4.5 of "copy" that the "from" location
# MUST exist. Version 4.13.0 applies both to a missing member of an object. github.com/evanphx/json-patch/v5 5.9.11
# and the Rust crate json-patch 4.2.0 refuse them. A client that tests its patches with one of these sees an error
# where the API server stores an object.
#
# Needs: go, cargo, and the two package registries. Exit 0: as described; 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT

mkdir -p "$folder/go" "$folder/rust/src"
cat > "$folder/patches.json" <<'JSON'
[
  {"name": "replace of a missing member", "patch": [{"op": "replace", "path": "/spec/b", "value": 2}]},
  {"name": "copy from a missing member", "patch": [{"op": "copy", "from": "/spec/b", "path": "/spec/c"}]},
  {"name": "remove of a missing member", "patch": [{"op": "remove", "path": "/spec/b"}]},
  {"name": "replace of a present member", "patch": [{"op": "replace", "path": "/spec/a", "value": 2}]}
]
JSON

cat > "$folder/go/main.go" <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"os"

	v5 "github.com/evanphx/json-patch/v5"
	v4 "gopkg.in/evanphx/json-patch.v4"
)

func say(library, name string, out []byte, err error) {
	if err != nil {
		out = []byte("refused")
	}
	fmt.Printf("%s: %s: %s\n", library, name, out)
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var cases []struct {
		Name  string
		Patch json.RawMessage
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		panic(err)
	}
	doc := []byte(`{"spec":{"a":1}}`)
	for _, c := range cases {
		old, err := v4.DecodePatch(c.Patch)
		if err != nil {
			panic(err)
		}
		out, err := old.Apply(doc)
		say("go v4", c.Name, out, err)
		current, err := v5.DecodePatch(c.Patch)
		if err != nil {
			panic(err)
		}
		out, err = current.Apply(doc)
		say("go v5", c.Name, out, err)
	}
}
GO
cat > "$folder/go/go.mod" <<'MOD'
module finding

go 1.24

require (
	github.com/evanphx/json-patch/v5 v5.9.11
	gopkg.in/evanphx/json-patch.v4 v4.13.0
)
MOD

cat > "$folder/rust/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
json-patch = "=4.2.0"
serde_json = "1"

[workspace]
TOML
cat > "$folder/rust/src/main.rs" <<'RUST'
fn main() {
    let path = std::env::args().nth(1).expect("the file of patches");
    let text = std::fs::read_to_string(path).expect("readable");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    for case in cases {
        let patch: json_patch::Patch = serde_json::from_value(case["patch"].clone()).expect("a patch");
        let mut doc = serde_json::json!({"spec": {"a": 1}});
        let out = match json_patch::patch(&mut doc, &patch) {
            Ok(()) => doc.to_string(),
            Err(_) => "refused".to_owned(),
        };
        println!("rust 4.2: {}: {out}", case["name"].as_str().expect("a name"));
    }
}
RUST

export GOFLAGS=-mod=mod CARGO_TARGET_DIR="$folder/target"
(cd "$folder/go" && go mod tidy > /dev/null 2>&1 && go run . "$folder/patches.json") > "$folder/seen"
(cd "$folder/rust" && cargo run --quiet -- "$folder/patches.json") >> "$folder/seen"
sort "$folder/seen" > "$folder/sorted"
cat "$folder/sorted"

sort > "$folder/expected" <<'SEEN'
go v4: replace of a missing member: {"spec":{"a":1,"b":2}}
go v4: copy from a missing member: {"spec":{"a":1,"c":null}}
go v4: remove of a missing member: refused
go v4: replace of a present member: {"spec":{"a":2}}
go v5: replace of a missing member: refused
go v5: copy from a missing member: refused
go v5: remove of a missing member: refused
go v5: replace of a present member: {"spec":{"a":2}}
rust 4.2: replace of a missing member: refused
rust 4.2: copy from a missing member: refused
rust 4.2: remove of a missing member: refused
rust 4.2: replace of a present member: {"spec":{"a":2}}
SEEN
diff "$folder/expected" "$folder/sorted" || { echo "the behaviour changed" >&2; exit 1; }
echo "as described"

# kubectl and the servers for tests and demo, built once into a cache that all clones share.
control_plane := e2e/control-plane/build.sh

.DEFAULT_GOAL := help
.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show a pool grow and shrink on a real control plane (KEEP=1 leaves it running)
	@$(control_plane) > /dev/null
	@cargo build --locked --package vnp-operator
	@cargo run --locked --package vnp-e2e --bin demo

.PHONY: test
test: ## Everything that must be green: lint, unit tests, scenarios on the real control plane
	@folder=$$($(control_plane) --with-virtual-kubelet) && failed= ;\
	KUBECTL=$$folder/kubectl hack/lint.sh || failed=1 ;\
	cargo build --locked --package vnp-operator || failed=1 ; : the scenarios start it as a process ;\
	cargo test --workspace --locked --no-fail-fast || failed=1 ;\
	[ -z "$$failed" ]

.PHONY: lint
lint: ## Format, clippy, licences and bans, scripts, Dockerfile, workflow, config (STRICT=1: no tool may be missing)
	@hack/lint.sh

.PHONY: fuzz
fuzz: ## Send the pod webhook whatever libFuzzer thinks of for a minute (SECONDS_EACH=n)
	@hack/fuzz.sh

.PHONY: bench-webhook
bench-webhook: ## Measure what the pod webhook costs, alone and in pod creation (ARGS=--help)
	@hack/bench-webhook.sh $(ARGS)

.PHONY: generate
generate: ## Write config/crd from the Rust types
	cargo run --locked --quiet --package vnp-crds --bin crdgen > config/crd/.new && mv config/crd/.new config/crd/virtualnodes.dev_virtualnodepools.yaml

.PHONY: states
states: ## Write docs/states: what kubectl describe says of each state, from the real control plane
	@$(control_plane) > /dev/null
	@cargo build --locked --package vnp-operator
	@VNP_WRITE_STATES=1 cargo test --workspace --locked --test scenarios -- states:: an_image_that_does_not_come_up

.PHONY: release
release: ## Build the static release binary and print its size
	@hack/release.sh

.PHONY: image
image: ## Build the container image (IMAGE=name:tag)
	docker build --tag $(or $(IMAGE),virtualnodepool-operator:0.1.0) .

# Everything a person or a CI job calls. What a command needs it installs into target/, once.

# rustup's own place comes first: a shell that has not read its profile yet finds Rust all the same.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# `make test ENVOY_VERSION=1.36.4` tests on another version of scripts/envoy.txt.
ENVOY_VERSION ?= 1.40.0
export ENVOY_VERSION
# ENVOY=path takes another Envoy.
ENVOY ?= target/tools/envoy-$(ENVOY_VERSION)/envoy/_bin/envoy
override ENVOY := $(abspath $(ENVOY))
# The module that `make wasm` builds. Demo, tests and benches find both by these names.
EPP_WASM := $(CURDIR)/target/epp_wasm.wasm
# The same with faults on demand (src/fault.rs), for the tests of what follows from them.
EPP_WASM_FAULTS := $(CURDIR)/target/epp_wasm_faults.wasm
# The Python packages of clients that `make clients` installs.
CLIENTS := $(CURDIR)/target/tools/clients
export ENVOY EPP_WASM EPP_WASM_FAULTS CLIENTS

# Of each fuzz target: long enough that nothing new turns up any more.
FUZZ_SECONDS ?= 600
export FUZZ_SECONDS

.PHONY: help run test test-host test-faults faults-report fuzz bench compare bench-report balancing check wasm wasm-faults envoy clients eppctl generate clean toolchain
# The goals share target/ and two cores.
.NOTPARALLEL:

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: wasm envoy ## Four simulated model servers behind Envoy, and how it routes to them
	cargo build --locked --package demo --package fake-model-server
	@cargo run --quiet --locked --package demo

test: wasm wasm-faults envoy clients ## Unit tests, end-to-end tests on a real Envoy, and a smoke test through func-e
	@scripts/test
	@scripts/func-e-smoke
	cargo run --quiet --locked --package faults -- --short

test-host: wasm wasm-faults envoy clients ## What touches the host, on the Envoy of ENVOY_VERSION: two minutes of make test
	@scripts/test --host

FAULTS := docs/faults/run.json --page docs/faults.md
test-faults: wasm wasm-faults envoy ## What breaks, and what clients lose by it: docs/faults.md; LONG=1 for the soak, too
	cargo run --release --quiet --locked --package faults -- --keep $(FAULTS) $(if $(LONG),--long) $(ARGS)

faults-report: ## docs/faults.md made anew from docs/faults/run.json
	cargo run --release --quiet --locked --package faults -- --keep $(FAULTS) --merge

fuzz: toolchain ## Arbitrary bytes against all that reads bytes: FUZZ_SECONDS of each target
	@scripts/fuzz

bench: wasm envoy ## The published benchmark, about 40 minutes of a silent machine: docs/benchmarks.md
	@scripts/bench suite $(ARGS)
	@scripts/bench balancing
	@scripts/bench report

compare: wasm envoy ## A quick look beside plain Envoy and a no-op filter: ARGS='--sizes 4 --slices 6'
	@scripts/bench compare $(ARGS)

bench-report: toolchain ## docs/benchmarks.md and its plots, made anew from docs/benchmarks/*.json
	@scripts/bench report

balancing: wasm envoy ## What balancers are worth to the model servers, eight minutes: docs/benchmarks.md
	@scripts/bench balancing $(ARGS)
	@scripts/bench report

check: toolchain ## Format, lints, documentation, sizes of files, instructions of a request, licences and advisories
	@scripts/toolchain --lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/wasm clippy epp-wasm noop
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	scripts/check-files
	scripts/links
	scripts/instructions
	scripts/deny

wasm: toolchain ## The module: target/epp_wasm.wasm
	@scripts/wasm build epp-wasm $(EPP_WASM)

wasm-faults: toolchain ## The module with faults on demand, for tests: target/epp_wasm_faults.wasm
	@scripts/wasm build epp-wasm $(EPP_WASM_FAULTS) fault-injection

envoy: ## A real Envoy in target/tools, or a look at the one that ENVOY=path names
	@scripts/envoy

clients: ## The clients of the end-to-end tests, in target/tools
	@scripts/clients

generate: toolchain ## docs/schema.json, configuration.md, eppctl.md and the tables of parity.md, made of the code
	cargo run --quiet --locked --package eppctl -- schema >target/schema.json
	cargo run --quiet --locked --package eppctl -- reference >target/configuration.md
	cargo run --quiet --locked --package eppctl -- manual >target/eppctl.md
	mv target/schema.json target/configuration.md target/eppctl.md docs/
	cargo run --quiet --locked --package eppctl -- parity --into docs/parity.md tests/parity/recorded tests/vectors/reference

eppctl: toolchain ## The command line tool: target/release/eppctl
	cargo build --release --locked --package eppctl

# What the tests of envoy/ need beside Envoy.
test: crds prometheus browser
.PHONY: crds image prometheus browser chart-check reproducible

reproducible: wasm ## Whether the module is the same, byte for byte, when it is built elsewhere
	@scripts/reproducible

image: wasm ## The module as an OCI image in target/image, to push to a registry
	@scripts/image $(EPP_WASM) target/image $$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

prometheus: ## Prometheus in target/tools, to try dashboard and alerts with
	@scripts/prometheus

browser: ## Chromium, to open the status page with
	@scripts/browser

chart-check: ## Helm's and kustomize's own word on charts/ and envoy/istio; builds both first, minutes
	@scripts/chart-check

crds: ## Istio's CRDs in target/tools, to validate manifests against
	@scripts/crds

clean: ## Remove all that was built and installed: target/
	rm -rf target

toolchain:
	@scripts/toolchain

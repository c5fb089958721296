# Entry points for developers and CI. Each target installs its tools into target/, once.

# rustup's directory comes first, for shells that have not read their profile yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# `make test ENVOY_VERSION=1.36.4` tests on another version of scripts/envoy.txt.
ENVOY_VERSION ?= 1.40.0
export ENVOY_VERSION
# ENVOY=path uses another Envoy.
ENVOY ?= target/tools/envoy-$(ENVOY_VERSION)/envoy/_bin/envoy
override ENVOY := $(abspath $(ENVOY))
# The module that `make wasm` builds. Demo, tests and benches use these variables.
EPP_WASM := $(CURDIR)/target/epp_wasm.wasm
# The module with fault injection (src/fault.rs), for tests.
EPP_WASM_FAULTS := $(CURDIR)/target/epp_wasm_faults.wasm
# The dynamic module that `make module` builds.
EPP_MODULE := $(CURDIR)/target/libepp.so
# The dynamic module with fault injection (crates/epp-module/src/fault.rs), for tests.
EPP_MODULE_FAULTS := $(CURDIR)/target/libepp_faults.so
# The Python packages of `make clients`.
CLIENTS := $(CURDIR)/target/tools/clients
export ENVOY EPP_WASM EPP_WASM_FAULTS EPP_MODULE EPP_MODULE_FAULTS CLIENTS

# Per fuzz target: longer runs find nothing new.
FUZZ_SECONDS ?= 600
# Of `make soak-module`. Without it, the same test takes a second.
SOAK_SECONDS ?= 600
export FUZZ_SECONDS

.PHONY: help run test test-host test-faults faults-report fuzz soak-module scaling-module bench compare bench-report balancing check
.PHONY: wasm wasm-faults module module-faults envoy clients generate eppctl reproducible image prometheus browser chart-check crds
.PHONY: dist dist-reproducible
.PHONY: clean toolchain
# Targets share target/ and two cores, so they do not run in parallel.
.NOTPARALLEL:

help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Where the demo and the fault suite have the picker: `make run HOST=module` (docs/hosts.md). Not from the environment, where
# some shells have the name of the machine.
HOST := wasm
export HOST

run: $(HOST) envoy ## Run the demo: four simulated model servers behind Envoy; ARGS=disagg: two of them compute prompts for the others; ARGS=flow: two of them get twice the load that they take; HOST=module: with the dynamic module
	cargo build --locked --package demo --package fake-model-server
	@cargo run --quiet --locked --package demo -- $(ARGS)

# The last three are for the tests of envoy/.
test: wasm wasm-faults module module-faults envoy clients crds prometheus browser ## Run all tests: unit, end to end on a real Envoy, a smoke test with func-e
	@scripts/test
	@scripts/func-e-smoke
	cargo run --quiet --locked --package faults -- --short

test-host: wasm wasm-faults envoy clients ## Run the tests of Envoy-dependent behaviour, with ENVOY_VERSION: two minutes
	@scripts/test --host

FAULTS := docs/faults/run.json --page docs/faults.md
test-faults: $(HOST) $(HOST)-faults envoy ## Run the fault suite (docs/faults.md); LONG=1 adds the soak test; HOST=module: with the dynamic module, and no page is written
	cargo run --release --quiet --locked --package faults -- $(if $(filter wasm,$(HOST)),--keep $(FAULTS)) $(if $(LONG),--long) $(ARGS)

faults-report: ## Regenerate docs/faults.md from docs/faults/run.json
	cargo run --release --quiet --locked --package faults -- --keep $(FAULTS) --merge

fuzz: toolchain ## Fuzz every parser for FUZZ_SECONDS each
	@scripts/fuzz

soak-module: toolchain ## Run the dynamic module under a load with the address sanitizer for SOAK_SECONDS, ten minutes (docs/hosts.md)
	@SOAK_SECONDS=$(SOAK_SECONDS) scripts/soak-module

scaling-module: toolchain ## Measure what it costs four workers of the dynamic module that they share a pool (docs/hosts.md)
	cargo test --release --quiet --locked --package epp-module --lib -- --ignored --nocapture scaling

bench: wasm module envoy ## Run the published benchmark (docs/benchmarks.md): 40 minutes on an idle machine
	@scripts/bench suite $(ARGS)
	@scripts/bench balancing
	@scripts/bench report

compare: wasm envoy ## Compare CPU per request with plain Envoy's and a no-op filter's, two minutes: ARGS='--sizes 4 --slices 12'
	@scripts/bench compare $(ARGS)

bench-report: toolchain ## Regenerate docs/benchmarks.md, its plots, and tables of sizing.md and README.md from docs/benchmarks/*.json
	@scripts/bench report

balancing: wasm envoy ## Benchmark load balancers by time to first token: eight minutes
	@scripts/bench balancing $(ARGS)
	@scripts/bench report

check: toolchain ## Check format, lints, docs, file sizes, instructions per request, licences, advisories
	@scripts/toolchain --lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/wasm clippy epp-wasm noop
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	scripts/check-files
	scripts/links
	scripts/instructions
	scripts/deny

wasm: toolchain ## Build the module: target/epp_wasm.wasm
	@scripts/wasm build epp-wasm $(EPP_WASM)

wasm-faults: toolchain ## Build the module with fault injection, for tests: target/epp_wasm_faults.wasm
	@scripts/wasm build epp-wasm $(EPP_WASM_FAULTS) fault-injection

module: toolchain ## Build the dynamic module for this machine's processor: target/libepp.so (docs/hosts.md)
	@scripts/module $(EPP_MODULE)

module-faults: toolchain ## Build the dynamic module with fault injection, for tests: target/libepp_faults.so
	@scripts/module $(EPP_MODULE_FAULTS) fault-injection

envoy: ## Install Envoy into target/tools, or check the one at ENVOY=path
	@scripts/envoy

clients: ## Install the clients of the end-to-end tests into target/tools
	@scripts/clients

generate: toolchain ## Regenerate docs/schema.json, configuration.md, metrics.md, eppctl.md and the tables of parity.md, migrating.md and operations.md
	cargo run --quiet --locked --package eppctl -- schema >target/schema.json
	cargo run --quiet --locked --package eppctl -- reference >target/configuration.md
	cargo run --quiet --locked --package eppctl -- reference --metrics >target/metrics.md
	cargo run --quiet --locked --package eppctl -- manual >target/eppctl.md
	cargo run --quiet --locked --package eppctl -- reference --into docs/migrating.md --documents tests/configs
	cargo run --quiet --locked --package eppctl -- reference --findings --into docs/operations.md
	mv target/schema.json target/configuration.md target/metrics.md target/eppctl.md docs/
	cargo run --quiet --locked --package eppctl -- parity --into docs/parity.md tests/parity/recorded tests/parity/catalogue tests/vectors/reference

eppctl: toolchain ## Build the command-line tool: target/release/eppctl
	cargo build --release --locked --package eppctl
	@scripts/stamp target/release/eppctl

reproducible: wasm ## Check that the module is byte-for-byte reproducible
	@scripts/reproducible

dist: wasm ## Build all files of a release (docs/releasing.md) into target/dist: minutes
	@scripts/dist

dist-reproducible: dist ## Check that all files of a release are byte-for-byte reproducible: minutes more
	@scripts/reproducible --dist

image: $(HOST) ## Write the module as an OCI image to target/image; HOST=module: the dynamic module
	@scripts/image $(if $(filter module,$(HOST)),$(EPP_MODULE),$(EPP_WASM)) target/image $$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

prometheus: ## Install Prometheus into target/tools, to test dashboard and alerts
	@scripts/prometheus

browser: ## Install Chromium, to test the status page
	@scripts/browser

chart-check: ## Check charts/, envoy/istio and envoy/gateway with Helm and kustomize; builds both first
	@scripts/chart-check

crds: ## Install the CRDs of Istio and Envoy Gateway into target/tools, to validate manifests
	@scripts/crds

clean: ## Remove everything that was built and installed: target/
	rm -rf target

toolchain:
	@scripts/toolchain

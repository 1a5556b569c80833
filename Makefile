# `make` alone lists the commands. A line `target: ## text` is what it prints.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.PHONY: help setup build demo test lint test-pure test-vm test-oracle e2e fleet conformance soak fuzz bench image \
	release-dry-run manifests deny docs clean

CARGO ?= cargo
# Tests mount for real: their binaries run as root, the compiler as you.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export CARGO_TARGET_$(HOST)_RUNNER := $(CURDIR)/scripts/as-root.sh

help: ## this list
	@echo "composefs-csi: image-backed, read-only volumes for Kubernetes on composefs"
	echo
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

setup: ## install what building and testing need (Debian packages, by apt)
	@scripts/setup.sh test

build: ## the release program, target/release/composefs-csi
	@scripts/setup.sh build
	$(CARGO) build --locked --release

# `make demo PROFILE=dev` reuses what `make test` has built.
demo: PROFILE ?= demo
demo: ## see it work: two images, three pods, one copy of every file (under a minute once built)
	@scripts/setup.sh demo
	echo "demo: building (profile $(PROFILE)); the first time takes a few minutes"
	$(CARGO) build --locked --profile $(PROFILE) --bin composefs-csi --example demo
	$(CARGO) run --quiet --locked --profile $(PROFILE) --example demo

test: lint ## everything but conformance: lints, unit and integration tests, real mounts, a VM (root or sudo)
	@scripts/setup.sh test
	echo "test: unit and integration tests; mounts, registries and builders are real"
	$(CARGO) test --locked --quiet

lint: ## format and clippy, warnings are errors
	@scripts/setup.sh build
	echo "test: format and lints"
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --quiet --all-targets -- --deny warnings
	$(CARGO) clippy --locked --quiet --test kind -- --deny warnings

test-pure: ## of these, what needs neither root nor other programs: unit tests and tests/pure
	@scripts/setup.sh build
	env --unset=CARGO_TARGET_$(HOST)_RUNNER $(CARGO) test --locked --quiet --lib --bins --test pure

test-vm: ## of these, fs-verity, tampering and SELinux in virtual machines with Debian's kernels, row by row
	@scripts/setup.sh test
	$(CARGO) test --locked --test vm -- --nocapture

test-oracle: ## the canonical digests and the store against composefs-rs's cfsctl (builds it once, some minutes)
	@scripts/setup.sh test
	echo "test: canonical digests and the store against cfsctl"
	$(CARGO) test --locked --quiet --test tools -- canonical:: composefs:: --include-ignored

e2e: ## tests/kind on a cluster that starts here (Kubernetes 1.20, built once; or KUBERNETES=1.36); E2E='words' selects
	@scripts/setup.sh e2e image
	$(if $(KUBERNETES),export COMPOSEFS_CSI_E2E_KUBERNETES=$(KUBERNETES))
	scripts/e2e/run.sh $(E2E)

fleet: ## what prefetching costs an API server with 5,000 nodes, on a cluster that starts here (FLEET='--nodes 500')
	@scripts/setup.sh e2e
	$(if $(KUBERNETES),export COMPOSEFS_CSI_E2E_KUBERNETES=$(KUBERNETES))
	scripts/e2e/fleet.sh $(FLEET)

conformance: ## csi-sanity of the Kubernetes project against the real driver and real mounts
	@scripts/setup.sh test
	echo "test: csi-sanity"
	PATH="$$(scripts/go.sh):$$PATH" tests/conformance/run.sh

# As users run the program, since latency is judged: optimised. `make soak PROFILE=dev` reuses what `make test` has built.
soak: PROFILE ?= demo
soak: ## pods, bad registries, full disks, kills and set clocks at random ([MINUTES=30] [SEED=n] for the same again)
	@scripts/setup.sh soak
	MINUTES=$(MINUTES) SEED=$(SEED) $(CARGO) test --locked --profile $(PROFILE) --test soak

fuzz: ## the parsers of foreign bytes, each for ten minutes ([FUZZ="tar index"] [SECONDS_EACH=600]; needs cargo-fuzz)
	@scripts/setup.sh fuzz
	scripts/fuzz.sh $(or $(SECONDS_EACH),600) $(FUZZ)

bench: ## the figures beside containerd, podman, umoci and cfsctl; rewrites docs/benchmarks.md (half an hour)
	@scripts/setup.sh bench
	$(CARGO) build --locked --release --bin composefs-csi --example bench
	$(CARGO) run --quiet --locked --release --example bench -- $(BENCH)

image: PROFILE ?= release
image: ## the container image; IMAGE=name:tag ARCH=arm64 ARCHIVE=file.tar PROFILE=dev change what and how
	@scripts/setup.sh image
	PROFILE=$(PROFILE) scripts/image.sh

release-dry-run: PROFILE ?= release
release-dry-run: ## a release of this machine's architecture: files, registry, signatures; nothing leaves the machine
	@scripts/setup.sh release
	PROFILE=$(PROFILE) scripts/release/dry-run.sh

manifests: ## manifests/ from the chart (builds helm once, if there is none)
	@scripts/manifests.sh

deny: ## licences, sources and duplicates of the dependencies (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "deny: run: cargo install cargo-deny --locked" >&2; exit 1; }
	cargo deny --all-features check bans licenses sources

docs: ## the code's documentation with its private items, warnings are errors
	@scripts/setup.sh build
	# A public item may link to a private one: both are in what this makes.
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" \
		$(CARGO) doc --locked --no-deps --document-private-items

clean: ## remove what was built
	@$(CARGO) clean

# `make demo` shows the main job, `make test` proves it; both set up what they need on a bare
# Debian 12 with Rust: packages, moto in a Python venv, dockerd, the node image.

CARGO := cargo --locked
# Integration tests mostly wait for their nodes: more of them at a time than there are cores.
AT_ONCE := 7
TOOLS := target/tools
DENY  := $(TOOLS)/bin/cargo-deny
CYCLONEDX := $(CURDIR)/$(TOOLS)/bin/cargo-cyclonedx
MANUAL := $(CURDIR)/target/debug/examples/manual

# Members are compiled by clippy, which lints what it compiles: `cargo clippy` checks every dependency
# a second time, five of thirty minutes. What ships is compiled by rustc itself.
export RUSTC_WORKSPACE_WRAPPER := clippy-driver
export CLIPPY_ARGS := -Dwarnings

# An error's own text says where it comes from; a backtrace of each costs the simulation, which makes
# many of them, its time.
export RUST_LIB_BACKTRACE := 0

# The scripts and tests look for programs in target/, whatever the caller prefers.
unexport CARGO_TARGET_DIR CARGO_ENCODED_RUSTFLAGS

# What ships names no path of the machine that built it, so that one commit gives the same bytes anywhere.
# As `trim-paths` would, which this toolchain does not have yet. The later of two rules counts.
CARGO_HOME ?= $(HOME)/.cargo
REMAP = --remap-path-prefix=$(CURDIR)=. \
	--remap-path-prefix=$(CARGO_HOME)/registry/src=/cargo/registry \
	--remap-path-prefix=$(shell rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(shell rustc --version --verbose | sed -n 's/^commit-hash: //p')
SHIP = RUSTC_WORKSPACE_WRAPPER= RUSTFLAGS="$(REMAP)" $(CARGO) rustc
STATIC := -- -C target-feature=+crt-static -C link-arg=-Wl,--build-id=none

.PHONY: demo test bench mutants dist dist-check setup build agent bootstrap release-files lint
.NOTPARALLEL:

demo: setup build agent
	tests/demo.sh

# The linters first: they are quick to fail. The integration tests come last in cargo's order, so that
# their summary is the last thing printed. All in one call: packages chosen apart are built apart.
test: setup lint build agent
	$(CARGO) test --workspace --lib --bins --tests -- --test-threads $(AT_ONCE)

bench: setup build agent
	target/debug/bench

# Breaks each rule of the lifecycle on purpose: the simulation has to notice. Takes an hour.
mutants:
	agent/mutations/run.py

# What a release consists of, in target/release-files. The programs take their time and memory: see README.
dist: build agent bootstrap release-files

# That HEAD, built once more and elsewhere, is the same to the byte, and that it runs anywhere.
dist-check: setup dist
	release/rebuild target/second-build MANUAL=$(MANUAL) CYCLONEDX=$(CYCLONEDX)
	release/check target/release-files/fleet-*.tar.gz fleet-agent fleet-bootstrap

setup:
	tests/setup.sh

# With the tests' own features, so that the tests need not build everything again. Lints.
build:
	$(CARGO) build --workspace --all-targets

# The programs as they ship: one static binary each.
agent:
	$(SHIP) --package fleet-agent --bin fleet-agent --profile dist $(STATIC)

bootstrap:
	$(SHIP) --package fleet-bootstrap --bin fleet-bootstrap --profile dist-bootstrap $(STATIC)

# All files carry the commit's time. No compiler sees it: what is C would be built again for each commit.
release-files: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
release-files: export CYCLONEDX := $(CYCLONEDX)
release-files: $(CYCLONEDX)
	rm -rf target/generated target/release-files
	$(MANUAL) target/generated
	release/describe target/generated
	release/pack target/dist/fleet-agent target/dist-bootstrap/fleet-bootstrap target/generated target/release-files
	cat target/release-files/*.sha256

lint: $(DENY)
	cargo fmt --all --check
	agent/mutations/run.py --check
	shellcheck release/check release/describe release/pack release/rebuild
	shellcheck systemd/*.sh packer/*.sh tests/*.sh tests/sandbox/image/build tests/sandbox/image/cure bootstrap/templates/install-agent.sh bootstrap/templates/mount-docker-volume.sh .ci/run
	$(CARGO) fetch
	$(DENY) --offline check bans licenses sources

$(DENY):
	CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny --version 0.20.2 --locked --debug --no-default-features --root $(TOOLS)

$(CYCLONEDX):
	CARGO_PROFILE_DEV_DEBUG=0 RUSTC_WORKSPACE_WRAPPER= cargo install cargo-cyclonedx --version 0.5.9 --locked --debug --root $(TOOLS)

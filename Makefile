# `make demo` shows the main job, `make test` proves it; both set up what they need on a bare
# Debian 12 with Rust: packages, moto in a Python venv, dockerd, the node image.

CARGO := cargo --locked
# Integration tests mostly wait for their nodes: more of them at a time than there are cores.
AT_ONCE := 7
TOOLS := target/tools
DENY  := $(TOOLS)/bin/cargo-deny

# Members are compiled by clippy, which lints what it compiles: `cargo clippy` checks every dependency
# a second time, five of thirty minutes. What ships is compiled by rustc itself.
export RUSTC_WORKSPACE_WRAPPER := clippy-driver
export CLIPPY_ARGS := -Dwarnings

# An error's own text says where it comes from; a backtrace of each costs the simulation, which makes
# many of them, its time.
export RUST_LIB_BACKTRACE := 0

# The scripts and tests look for programs in target/, whatever the caller prefers.
unexport CARGO_TARGET_DIR

.PHONY: demo test bench mutants setup build agent lint
.NOTPARALLEL:

demo: setup build agent
	tests/demo.sh

# The linters first: they are quick to fail. The integration tests come last in cargo's order, so that
# their summary is the last thing printed. All in one call: packages chosen apart are built apart.
test: setup lint build agent
	$(CARGO) test --workspace --all-targets -- --test-threads $(AT_ONCE)

bench: setup build agent
	target/debug/bench

# Breaks each rule of the lifecycle on purpose: the simulation has to notice. Takes an hour.
mutants:
	agent/mutations/run.py

setup:
	tests/setup.sh

# With the tests' own features, so that the tests need not build everything again. Lints.
build:
	$(CARGO) build --workspace --all-targets

# The agent as it ships: one static binary.
agent:
	RUSTC_WORKSPACE_WRAPPER= $(CARGO) rustc --package fleet-agent --bin fleet-agent --profile dist -- -C target-feature=+crt-static

lint: $(DENY)
	cargo fmt --all --check
	agent/mutations/run.py --check
	shellcheck systemd/*.sh packer/*.sh tests/*.sh tests/sandbox/image/build tests/sandbox/image/cure bootstrap/templates/*.sh .ci/run
	$(CARGO) fetch
	$(DENY) --offline check bans licenses sources

$(DENY):
	CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny --version 0.20.2 --locked --debug --no-default-features --root $(TOOLS)

# What one does with this project. `make test` is everything that proves it; the other targets are its parts.

SECONDS ?= 60

.PHONY: test check unit e2e web doc run tools fuzz fuzz-short

test: tools check unit doc web fuzz-short e2e

# Rust, Node and a browser; what is missing is installed where that is possible, or named with what to do.
tools:
	@scripts/tools

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit:
	cargo test --workspace --locked --quiet

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

web:
	node --test --test-reporter=spec tests/web/*.test.js

e2e:
	cargo build --locked --bin tidings
	cd tests/e2e && npm ci --silent && npm test

# Each target for SECONDS; what it finds on the way is kept for the next time.
fuzz:
	@FUZZ_FOUND=fuzz/target/corpus scripts/fuzz $(SECONDS)

# Each target over its corpus and a little further, and the targets themselves by the rules of the other code.
fuzz-short:
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --locked -- -D warnings
	@scripts/fuzz 3

run:
	cargo run --release --locked

# What one does with this project. `make test` is everything that proves it; the other targets are its parts.

.PHONY: test check unit e2e web doc run tools

test: tools check unit doc web e2e

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

run:
	cargo run --release --locked

# What one does with this project. `make test` is everything that proves it; the other targets are its parts.

.PHONY: test check unit mutants sim e2e web conformance conformance-short doc run tools

test: tools check unit mutants doc web e2e conformance-short

# Rust, Node and a browser; what is missing is installed where that is possible, or named with what to do.
tools:
	@scripts/tools

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit:
	cargo test --workspace --locked --quiet

# Deliberate mistakes in a copy of the engine, each of which the simulated world must find.
mutants:
	cargo test --locked -p engine --test mutants -- --ignored --nocapture

# New seeds in the simulated world for so long; or one seed again, with its shortest history.
SECONDS ?= 60
sim:
ifdef SEED
	SIM_SEED=$(SEED) cargo test --release --locked -p engine --test sim replay -- --ignored --nocapture
else
	SIM_SECONDS=$(SECONDS) SIM_FIRST=$${SIM_FIRST:-$$(date +%s)000} cargo test --release --locked -p engine --test sim explore -- --ignored --nocapture
endif

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

web:
	node --test --test-reporter=spec tests/web/*.test.js

e2e:
	cargo build --locked --bin tidings
	cd tests/e2e && npm ci --silent && npm test

# All Autobahn cases over the WebSocket layer: some minutes. The short set is a part of `make test`.
conformance:
	tests/conformance/websocket.py all

conformance-short:
	tests/conformance/websocket.py short

run:
	cargo run --release --locked

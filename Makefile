# What one does with this project. `make test` is everything that proves it; the other targets are
# its parts.

.PHONY: test check unit mutants sim fuzz fuzz-short hostile storms closes chaos e2e web conformance conformance-short doc run tools bench micro bench-check

test: tools check unit mutants doc web fuzz-short e2e conformance-short

# Rust, Node and a browser; what is missing is installed where that is possible, or named with what
# to do.
tools:
	@scripts/tools

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --log-level error check licenses bans sources

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
	cd tests/e2e && npm ci --silent && npm test && npm run --silent readme

# All Autobahn cases over the WebSocket layer: some minutes. The short set is a part of `make test`.
conformance:
	tests/conformance/websocket.py all

conformance-short:
	tests/conformance/websocket.py short

# Each target for SECONDS; what it finds on the way is kept for the next time.
fuzz:
	@FUZZ_FOUND=fuzz/target/corpus scripts/fuzz $(SECONDS)

# Each target over its corpus and a little further, always in the same way; and the targets
# themselves by the rules of the other code.
fuzz-short:
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --locked -- -D warnings
	@FUZZ_RUNS=5000 scripts/fuzz

# Hostile peers against a release build, one case at a time, with what was measured.
hostile:
	cargo test --release --locked -p tidings --test hostile -- --nocapture --test-threads=1

# Close codes in a browser, 50 times each, directly and behind nginx and HAProxy (apt-get install
# nginx haproxy): 15 minutes.
closes:
	cargo build --locked --bin tidings
	cd tests/e2e && npm ci --silent && CLOSE_TRIES=50 PROXIES=1 node --test --test-reporter=spec --test-timeout=1400000 close.test.js

# The long storms: some 10,000 sockets in processes of their own, two minutes.
storms:
	STORMS=long cargo test --release --locked -p tidings --test storms -- --nocapture --test-threads=1

# Three nodes on real Redis and NATS servers under faults, 3,000 clients: seven minutes, and a table
# of what clients saw.
chaos:
	CHAOS=long cargo test --release --locked -p tidings --test chaos -- --nocapture --test-threads=1

run:
	cargo run --release --locked

# Load against a release build on one core, with the generator on another, beside the limit of this
# machine: a table with its targets. ROWS, ROUNDS and SAVE=1 as in `scripts/bench --help`.
bench:
	cargo build --release --locked --bin tidings
	@scripts/bench $(if $(ROWS),--only $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SAVE),--save)

# The steps of the data path: times, and instructions beside those of bench/instructions.tsv
# (RENEW=1 writes them anew).
micro:
	cargo bench --locked -p engine --bench data_path

bench-check:
	@scripts/bench-check $(if $(RENEW),--renew)

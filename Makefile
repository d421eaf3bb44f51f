# `make test` runs all tests. The other targets are its parts, their long forms, and benchmarks.

.PHONY: test check unit mutants mutants-redis sim sim-redis fuzz fuzz-short hostile storms closes chaos kafka e2e web conformance conformance-short doc run tools bench micro bench-check

test: tools check unit mutants doc web fuzz-short e2e conformance-short

# Checks for the required tools. Missing ones are installed where possible, or listed with how to
# install them.
tools:
	@scripts/tools

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --log-level error check licenses bans sources

unit:
	cargo test --workspace --locked --quiet

# Mutation tests: deliberate bugs in a copy of the engine, each of which the simulation must detect.
mutants:
	cargo test --locked -p engine --test mutants -- --ignored --nocapture

# The same for the Redis broker and its simulated world. Takes some minutes.
mutants-redis:
	cargo test --locked -p brokers --test mutants -- --ignored --nocapture

# Runs new seeds in the simulation for SECONDS, or replays SEED and prints its shortest history.
SECONDS ?= 60
sim:
ifdef SEED
	SIM_SEED=$(SEED) cargo test --release --locked -p engine --test sim replay -- --ignored --nocapture
else
	SIM_SECONDS=$(SECONDS) SIM_FIRST=$${SIM_FIRST:-$$(date +%s)000} cargo test --release --locked -p engine --test sim explore -- --ignored --nocapture
endif

# The same for the state machine of the Redis broker.
sim-redis:
	$(if $(SEED),SIM_SEED=$(SEED),SIM_SECONDS=$(SECONDS) SIM_FIRST=$${SIM_FIRST:-$$(date +%s)000}) \
	cargo test --release --locked -p brokers --lib the_guarantees_hold -- --nocapture

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

web:
	node --test --test-reporter=spec tests/web/*.test.js

e2e:
	cargo build --locked --bin tidings
	cd tests/e2e && npm ci --silent && npm test && npm run --silent readme

# All Autobahn cases against the WebSocket layer. Takes some minutes; `make test` runs a short set.
conformance:
	tests/conformance/websocket.py all

conformance-short:
	tests/conformance/websocket.py short

# Runs each fuzz target for SECONDS and stores new inputs for the next run.
fuzz:
	@FUZZ_FOUND=fuzz/target/corpus scripts/fuzz $(SECONDS)

# Checks format and lints of the fuzz targets, and runs each over its corpus and 5,000 inputs with a
# fixed seed.
fuzz-short:
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target --locked -- -D warnings
	@FUZZ_RUNS=5000 scripts/fuzz

# Hostile peers against a release build, one case at a time; prints measurements.
hostile:
	cargo test --release --locked -p tidings --test hostile -- --nocapture --test-threads=1

# Close codes in a browser, 50 times each, directly and behind nginx and HAProxy (apt-get install
# nginx haproxy). Takes 15 minutes.
closes:
	cargo build --locked --bin tidings
	cd tests/e2e && npm ci --silent && CLOSE_TRIES=50 PROXIES=1 node --test --test-reporter=spec --test-timeout=1400000 close.test.js

# The long form of the storm tests: about 10,000 sockets in separate processes. Takes two minutes.
storms:
	STORMS=long cargo test --release --locked -p tidings --test storms -- --nocapture --test-threads=1

# Three nodes on real Redis and NATS servers under faults, with 3,000 clients. Takes seven minutes;
# prints a table of what clients received.
chaos:
	CHAOS=long cargo test --release --locked -p tidings --test chaos -- --nocapture --test-threads=1

# A million messages through Kafka to a thousand subscribers, on two nodes of which one is killed.
# Takes some minutes; prints the rate beside that of a bare consumer.
kafka:
	cargo build --release --locked --bin tidings
	KAFKA=long cargo test --release --locked -p tidings --test kafka -- --nocapture

run:
	cargo run --release --locked

# Load against a release build on one core, with the generator on another, compared with the limit
# of the machine. Prints a table with targets. ROWS, ROUNDS, SAVE=1: see `scripts/bench --help`.
bench:
	cargo build --release --locked --bin tidings
	@scripts/bench $(if $(ROWS),--only $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SAVE),--save)

# Benchmarks of the steps of the data path: `micro` measures times, `bench-check` compares
# instruction counts with bench/instructions.tsv (RENEW=1 rewrites the file).
micro:
	cargo bench --locked -p engine --bench data_path

bench-check:
	@scripts/bench-check $(if $(RENEW),--renew)

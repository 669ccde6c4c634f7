# The only entry: `make` lists the targets. Each is a call of cargo or of a script, which says more.
static := x86_64-unknown-linux-musl
.DEFAULT_GOAL := help
.PHONY: soak help setup demo test test-unit bench-restore bench-backup bench-wake bench-restart check runner images image sandbox-up sandbox-down sandbox-wipe

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages and the Rust target that are missing
	tests/sandbox/setup.sh

demo: setup ## an alert restores a database on a private Swarm while you watch (DEMO_KEEP=1 leaves it running)
	cargo build -q --workspace --bin demo
	$${CARGO_TARGET_DIR:-target}/debug/demo

test: setup ## all tests, those on a real private Swarm included
	tests/run.sh

test-unit: ## lints, unit tests and the simulated Swarm
	tests/run.sh unit

bench-restore: setup runner ## downtime of a restore: a runbook's shell commands, and Skep's ways, at two sizes
	cargo build --release -p skep-tests --bins
	target/release/bench_restore; status=$$?; tests/sandbox/engine.sh down; exit $$status

bench-backup: setup ## the runner against pg_dump, pg_restore and tar, its memory, and downtime at two sizes
	cargo bench -q --profile runner --target $(static) -p skep-runner --bench backup >target/bench-backup.txt; status=$$?; \
		cat target/bench-backup.txt; exit $$status
	cargo test -q --release -p skep-store --test stores -- --ignored --nocapture two_gib
	cargo build --release -p skep-tests --bins
	target/release/bench_backup target/bench-backup.txt; status=$$?; tests/sandbox/engine.sh down; exit $$status

bench-wake: setup runner image ## waking on demand against Swarm itself, the waker against nginx in the path, 1,000 sleepers
	cargo build --release -p skep-tests --bin bench_wake --bin operator
	target/release/bench_wake; status=$$?; tests/sandbox/engine.sh down; exit $$status

bench-restart: setup runner ## the restart of a whole stack: a runbook's shell commands and fixed waits, and Skep
	cargo build --release -p skep-tests --bins
	target/release/bench_restart; status=$$?; tests/sandbox/engine.sh down; exit $$status

soak: setup ## hours: every write of every operation, and on a real Swarm a kill at the first writes of every step of a restore
	SKEP_SAGA=all cargo test --workspace --test saga
	tests/run.sh soak

check: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cd tests && shellcheck *.sh sandbox/*.sh images/*/[em]*.sh && shellcheck -s sh images/*/install.sh

runner: ## build the static runner's binaries and say how large they are
	cargo build --profile runner -p skep-runner --target $(static)
	@stat -c '%n: %s bytes' $(addprefix target/$(static)/runner/skep-runner,-dir -wal -service) target/$(static)/runner/skep-runner

images: sandbox-up ## build the images of the tests and the demo, in the sandbox
	tests/sandbox/images.sh

image: sandbox-up ## build Skep's own image, skep:dev, in the sandbox
	tests/sandbox/images.sh skep:dev

sandbox-up: ## start the private Swarm (your own Docker is not touched)
	tests/sandbox/engine.sh up

sandbox-down: ## stop the private Swarm; its images stay
	tests/sandbox/engine.sh down

sandbox-wipe: ## stop the private Swarm and remove all it had
	tests/sandbox/engine.sh wipe

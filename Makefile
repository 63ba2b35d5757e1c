# What one does with a clone. Each target does all that it needs.
.PHONY: help demo setup test test-long soak fuzz loom lint instructions attacks release bench docs image
# Debian keeps servers such as nginx where only root looks for them.
export PATH := $(PATH):/usr/sbin:/sbin

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## pillion, three servers and a client in this terminal
	cargo run --release -- demo

setup: ## install what tests and benchmark need (Debian)
	tools/setup bench

test: ## all tests
	tools/setup
	python3 -m unittest discover -s benches/tests -t benches -q
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; cargo test --doc -q && cargo nextest run --workspace --no-fail-fast; \
	else \
		set -x; cargo test --workspace; \
	fi
	@$(MAKE) --no-print-directory instructions

test-long: ## the tests that take minutes, on an optimised build
	tools/setup
	cargo test --profile quick --test behaviour --test chaos -- --ignored --test-threads 1

soak: MINUTES ?= 30
soak: ## calls, churn, faults and reloads at once, and what the program holds meanwhile; MINUTES=30
	tools/setup
	MINUTES=$(MINUTES) cargo test --profile quick --test soak -- --ignored --nocapture

fuzz: SECONDS ?= 60
fuzz: ## all that reads what strangers write, against what a fuzzer makes up; needs cargo-fuzz and a nightly Rust; SECONDS=60
	tests/fuzz/seed
	tests/fuzz-program/seed
	@set -e; for target in tests/fuzz*/src/bin/*.rs; do \
		folder=$${target%/src/bin/*}; target=$$(basename $$target .rs); echo "== $$target"; \
		cargo +nightly fuzz run --fuzz-dir $$folder --sanitizer none $$target -- -timeout=30 \
			-max_total_time=$(SECONDS) -max_len=4096 -verbosity=0 -print_funcs=0 -print_final_stats=1; \
	done

loom: ## what workers share without a lock, in every order of their steps
	cd tests/loom && cargo test

lint: export RUSTDOCFLAGS = -D warnings
lint: ## formatting, clippy, documentation, licences and advisories
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo doc --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny check; \
	else echo "cargo deny is not installed: licences and advisories are not checked"; fi

instructions: ## what a call costs in instructions, against benches/instructions.json
	tools/setup
	cargo build --profile quick -p pillion
	benches/instructions

attacks: ## what attacks do to calls beside them and to memory, into docs/security.md; half an hour; ARGS="--rounds 1 --only PING" for a look
	tools/setup bench
	cargo build --profile quick -p pillion
	cargo build --profile quick -p pillion-load
	@set -ex; for mode in fresh pooled; do benches/attacks --mode $$mode $(or $(ARGS),--write); done

release: ## target/release/pillion, optimised by a profile of itself under load; takes a quarter of an hour
	tools/setup
	tools/release

bench: ## pillion beside other proxies, see benches/README.md; ARGS=--quick for a look
	tools/setup bench
	tools/release
	cargo build --release -p pillion-load
	benches/run $(ARGS)

docs: ## documentation of the code, in target/doc
	cargo doc --no-deps --document-private-items

image: ## container image pillion:latest, with docker or buildah
	tools/image

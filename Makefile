# Penstock: `make demo` and `make test` are the two commands; both work from a bare clone.
# Stamps under .make/ keep a second `make` from doing any work twice.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(p) 2>/dev/null),$(p))))
BIN := .venv/bin
RUST := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test check bench soak sanitize clean docs

help:  ## this page
	@echo "Penstock. Usage: make TARGET"
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1|\2/' | column -t -s '|'
	@echo "  Example: make bench NAME=libsvm ARGS='--quick'"

.make/python: pyproject.toml constraints.txt
	@mkdir -p .make
	@command -v cargo >/dev/null || { echo "error: cargo is not installed; hint: install Rust 1.89 or later (rustup)"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed; hint: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group dev
	@touch $@

.make/extension: .make/python $(RUST)
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --quiet --extras local,grpc
	@touch $@

# PyTorch weighs gigabytes: what tests and types need (and a model of others that tests convert), `demo` does not.
.make/packages: .make/python
	$(BIN)/pip install --quiet torch onnxscript tensorboardX tqdm requests absl-py
	$(BIN)/pip install --quiet skl2onnx onnxmltools pandas xgboost-cpu 'protobuf<7'
	$(BIN)/pip install --quiet --no-deps deepctr-torch==0.3.0 tensorboard
	@touch $@

.make/torch: .make/packages .make/extension
	@touch $@

setup: .make/extension  ## make .venv whole: dependencies, Rust extension (release), penstock itself

demo: setup  ## the main job on simulated click logs: raw logs -> samples -> features -> GBDT+LR -> a live service -> the closed loop
	$(BIN)/penstock demo

# Clients that others wrote judge the serving host, each from an environment of its own.
.make/clients: .make/python $(wildcard tests/services/serving/requirements/*.txt)
	$(BIN)/python tests/services/serving/environments.py triton kserve pytriton
	@touch $@

test: .make/torch .make/clients  ## every test (real data where ../shared is present)
	cargo test --release --quiet --workspace --tests
	$(BIN)/pytest -q -n 2 --dist worksteal --durations=25

check: .make/torch  ## format, lint, types, layers, Rust lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --release --quiet --workspace --all-targets -- -D warnings

bench: setup  ## one benchmark against its pinned peers: NAME=flow|libsvm|features|dictionary|itemsets|linear|table|deep|serving|streams|views|live|freshness|join|size [ARGS=--quick]
	@test -n "$(NAME)" || { echo "error: which one? hint: make bench NAME=libsvm"; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py $(ARGS)

# TensorFlow weighs 1.7 GB: its own environment, and only here.
.make/tensorflow: .make/torch tests/services/serving/requirements/tensorflow.txt
	$(BIN)/python tests/services/serving/environments.py tensorflow
	@touch $@

soak: .make/tensorflow  ## the slow ones: an hour of kills, sixty days of the loop, 100 kills, 6 GB through a flow, 100 million rows, TensorFlow's models
	cargo test --release -p penstock-table --test memory -- --ignored
	$(BIN)/pytest -q -m soak

# What nightly Rust can say about the table's `unsafe`. Standard iterators are slow under Miri: it has tests of its own.
# rayon's deque (crossbeam-epoch) keeps to tree borrows only, makes pointers of integers, and its threads outlive a test.
MIRI := -Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks
FUZZ_SECONDS ?= 120
SANITIZED := $(CURDIR)/target/sanitize
sanitize:  ## the table under ThreadSanitizer and Miri, its readers and the host's doors under fuzzing (nightly Rust, cargo-fuzz; 40 min)
	@cargo +nightly --version >/dev/null || { echo "error: nightly Rust is not installed; hint: rustup toolchain install nightly"; exit 1; }
	@cargo fuzz --version >/dev/null || { echo "error: cargo-fuzz is not installed; hint: cargo install cargo-fuzz"; exit 1; }
	rustup component add --toolchain nightly rust-src miri
	RUSTFLAGS=-Zsanitizer=thread cargo +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu --target-dir $(SANITIZED) \
	  -p penstock-table --test pool --test promises --test cuts -- threads
	MIRIFLAGS="$(MIRI)" cargo +nightly miri test --target-dir $(SANITIZED) -p penstock-table --test miri
	for reader in checkpoint snapshot delta; do mkdir -p $(SANITIZED)/corpus/$$reader; (cd crates/penstock-table && \
	  cargo +nightly fuzz run $$reader $(SANITIZED)/corpus/$$reader fuzz/seeds/$$reader -- -malloc_limit_mb=256 -max_total_time=$(FUZZ_SECONDS)) || exit 1; done
	for door in json binary protobuf; do mkdir -p $(SANITIZED)/corpus/$$door; (cd crates/penstock-serve && \
	  cargo +nightly fuzz run $$door $(SANITIZED)/corpus/$$door fuzz/seeds/$$door -- -malloc_limit_mb=512 -rss_limit_mb=1024 -max_total_time=$(FUZZ_SECONDS)) || exit 1; done

docs: setup  ## write the generated pages and schemas anew
	$(BIN)/python scripts/reference.py
	$(BIN)/python -m penstock.features.reference
	$(BIN)/python -m penstock.operators.expressions.reference docs/reference/expressions.md

clean:  ## remove what was built (not the runs)
	rm -rf .venv .make target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# `make` alone lists the targets. Each does all the set-up it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Steps come in the order in which they are named, also with -j: cargo itself uses all cores.
.NOTPARALLEL:
.PHONY: help demo up down status worker workers build check test test-ui test-import bench faults soak mutants clean topology store definitions rust

export RABBITRY_HOME ?= $(CURDIR)/.rabbitry
# Tests take SQLite unless they are told; everything else takes what `up` was told last.
TEST_STORE := $(or $(STORE),sqlite)
CHOSEN := $(if $(wildcard $(RABBITRY_HOME)/store.env),postgres,sqlite)
STORE ?= $(CHOSEN)
$(if $(filter sqlite postgres,$(STORE)),,$(error STORE is sqlite or postgres, not $(STORE)))
N ?= 1
ROWS ?= 100000
BROKER := rabbitmq/broker.sh
POSTGRES := bin/postgres.sh
# Where cargo puts what it builds.
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
export RELEASE := $(TARGET)/release

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "make %-12s %s\n", $$1, $$2}'

demo: up ## Bring everything up, send every command, kill a worker under load, and leave the system running
	@bin/demo.sh

up: build topology store ## Start RabbitMQ (yours by AMQP_URL, an installed one, Docker, or apt) and bring the topology; STORE=postgres starts that too

topology:
	@$(BROKER) up
	@$(RELEASE)/rabbitry topology apply >/dev/null
	@echo "topology: the exchanges, queues and policies of rabbitmq/definitions.json are in place"

# Workers on the other store would answer from it.
store:
	@$(if $(filter $(CHOSEN),$(STORE)),,bin/workers.sh stop)
	@$(POSTGRES) $(if $(filter postgres,$(STORE)),up,forget)

down: ## Stop what was started here: workers, the private broker and PostgreSQL; data stay
	@bin/workers.sh stop
	@$(BROKER) down
	@$(POSTGRES) down

status: ## Show the broker, the queues and the workers
	@$(BROKER) status || true
	@$(if $(filter postgres,$(STORE)),$(POSTGRES) status || true)
	@bin/workers.sh list
	@$(RELEASE)/rabbitry status

worker: up ## Run one worker in the foreground
	@$(RELEASE)/users-worker

workers: up ## Start N more workers in the background (make workers N=4)
	@bin/workers.sh start $(N)

build check test test-import test-ui bench faults soak mutants: rust

rust:
	@bin/rust.sh

build: ## Compile the programs
	@cargo build --release --locked --bins
	@if grep -la RABBITRY_FAILPOINTS $(RELEASE)/rabbitry $(RELEASE)/users-worker; then \
		echo "these programs can fail on purpose: built with the feature failpoints" >&2; exit 1; fi

definitions: build ## Write rabbitmq/definitions.json anew, as the services need it
	@$(RELEASE)/rabbitry topology show >rabbitmq/definitions.json.new
	@mv rabbitmq/definitions.json.new rabbitmq/definitions.json

# A toolchain of rustup's minimal profile has neither.
check: ## Format, clippy, rustdoc: all without a warning
	@{ cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || \
		{ command -v rustup >/dev/null && rustup component add rustfmt clippy; } || \
		{ echo "make check needs rustfmt and clippy, which the toolchain of $$(command -v cargo || echo no cargo) lacks: install them" >&2; exit 1; }
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --features failpoints -- -D warnings
	@# A service pays for what it uses: each store and the CLI can be left out.
	cargo clippy --locked -p rabbitry --no-default-features --features sqlite -- -D warnings
	cargo clippy --locked -p rabbitry --no-default-features --features postgres -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --features failpoints

package: ## Make the library's package as it would be published, and build it
	cargo package --locked --package rabbitry

test: ## Every test, on a private broker of its own that is stopped at the end; STORE=postgres: on PostgreSQL
	@STORE=$(TEST_STORE) tests/run.sh

test-import: ## The tests of import with ROWS rows instead of 5,000 (make test-import ROWS=100000)
	@STORE=$(TEST_STORE) RABBITRY_IMPORT_ROWS=$(ROWS) tests/run.sh import::

test-ui: ## Use the management UI in a real browser (Chromium; on Debian it is installed)
	@tests/ui/run.sh

bench: ## Measure the worker beside a bare echo (QUICK=1: a minute; BENCH=--help lists the options)
	@cargo bench --locked --bench bench --no-run
	@STORE=$(TEST_STORE) tests/with-broker.sh cargo bench --locked --bench bench -- $(if $(QUICK),--quick) $(BENCH)

# Compiled as a release is, but with failpoints, and beside it: target/release holds what may be used.
FAULTS_BUILD := --locked --profile faults --features failpoints --test faults
MINUTES ?= 10
faults: ## Break workers, broker, store and lines on purpose: the whole matrix (FAULTS=--help: the options; STORE=postgres)
	@cargo test $(FAULTS_BUILD) --no-run
	@STORE=$(TEST_STORE) tests/with-broker.sh cargo test $(FAULTS_BUILD) -- $(FAULTS)

soak: ## Random faults for MINUTES (make soak MINUTES=60)
	@cargo test $(FAULTS_BUILD) --no-run
	@STORE=$(TEST_STORE) tests/with-broker.sh cargo test $(FAULTS_BUILD) -- --soak $(MINUTES) $(FAULTS)

mutants: ## Plant mistakes in the workers, and see that the faults find each of them
	@cargo test $(FAULTS_BUILD) --no-run
	@STORE=$(TEST_STORE) tests/with-broker.sh cargo test $(FAULTS_BUILD) -- --mutants $(FAULTS)

clean: down ## Stop everything and delete what was built and stored
	@$(BROKER) delete
	@$(POSTGRES) delete
	rm -rf "$(RABBITRY_HOME)"
	cargo clean

# Thin on purpose: each target is one line of real work. `make setup` makes whatever is missing and is quick when nothing is.
BACKEND ?= nftables
EXAMPLE ?= examples/shop
BACKENDS ?= memory nftables iptables ebpf ovs
SOURCE ?= direct
JOBS ?= 3
SIZE ?= quick
SECTIONS ?=
MEASURE ?=
BIN := .venv/bin
SOURCES := core/src backends/*/src tests/conformance/src tests/benchmarks/polyplane_bench tools

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint type layers conformance bench docs

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing: system packages (Debian, as root) and .venv
	@tools/setup.sh

demo: setup ## Enforce EXAMPLE's policies on BACKEND in a sandbox, before and after
	@$(BIN)/polyplane demo --backend $(BACKEND) $(EXAMPLE)

lint: setup ## Style and format, without changing anything
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: setup ## Types, strictly
	@$(BIN)/mypy $(SOURCES)

layers: setup ## Who may import whom
	@$(BIN)/lint-imports --no-logo

test: lint type layers ## Everything: lint, type, layers, then all tests of all tiers on all backends, JOBS at once
	@$(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

conformance: setup ## The conformance suite alone, all tiers, on each of BACKENDS (SOURCE=kubernetes: by way of an API server)
	@for backend in $(BACKENDS); do $(BIN)/polyplane-conformance run --backend $$backend --source $(SOURCE) || exit 1; done

bench: setup ## Measure: SIZE=quick or full, SECTIONS=core,…, MEASURE=nftables,ebpf,…; results, charts and a report in bench/results
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/benchmarks/requirements.txt
	@PYTHONPATH=tests/benchmarks $(BIN)/python -m polyplane_bench --size $(SIZE) --sections "$(SECTIONS)" --backends "$(MEASURE)"

docs: setup ## Write the generated pages of docs/ anew
	@$(BIN)/python tools/generate_docs.py

# Thin on purpose: each target is one line of real work. `make setup` makes whatever is missing and is quick when nothing is.
BACKEND ?= nftables
EXAMPLE ?= examples/shop
BACKENDS ?= memory nftables iptables ebpf ovs
SOURCE ?= direct
BIN := .venv/bin
SOURCES := core/src backends/*/src tests/conformance/src tools

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

test: lint type layers ## Everything: lint, type, layers, then all tests of all tiers on all backends
	@$(BIN)/pytest

conformance: setup ## The conformance suite alone, all tiers, on each of BACKENDS (SOURCE=kubernetes: by way of an API server)
	@for backend in $(BACKENDS); do $(BIN)/polyplane-conformance run --backend $$backend --source $(SOURCE) || exit 1; done

bench: setup ## Benchmarks: counts are asserted, times are recorded in tests/benchmarks/results
	@$(BIN)/pytest tests/benchmarks --benchmarks

docs: setup ## Write the generated pages of docs/ anew
	@$(BIN)/python tools/generate_docs.py

# Two commands do everything on a fresh machine: `make demo` and `make test`. The rest is for those who work on Gridtide.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DATA ?=

.PHONY: demo demo-vm test test-long lint unit bench bench-quick conformance mutate lock clean help

help:
	@echo "make demo [DATA=FILE]  start a site, run a real analysis on it, report"
	@echo "make demo-vm            the same on real virtual machines (QEMU; takes root)"
	@echo "make test              all checks and tests"
	@echo "make test-long         faults of real pools and clouds, minutes each; wants a quiet machine"
	@echo "make unit              the tests that take seconds"
	@echo "make bench             the figures, into benchmarks/latest.json"
	@echo "make conformance       which cloud driver passes which case, into docs/reference/conformance.md"
	@echo "make mutate            mutation score of planning/ and model/"
	@echo "make lock              renew requirements.lock from pyproject.toml"

$(READY): requirements.lock pyproject.toml tools/prepare.sh
	sh tools/prepare.sh "$(PYTHON)"
	touch $@

demo: $(READY)
	$(BIN)/python demo/run.py $(if $(DATA),--data "$(DATA)")

demo-vm: $(READY)
	sh tools/prepare-vm.sh
	$(BIN)/python demo/run.py --virtual --jobs 12 --seconds 900 $(if $(DATA),--data "$(DATA)")

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest tests/unit tests/scenarios -n auto

test: lint
	sh tools/test.sh

test-long: $(READY)
	$(BIN)/pytest -q tests/long

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-quick: $(READY)
	$(BIN)/python -m benchmarks --quick

# Drivers that are not run keep the results of their last run. Of one alone: make conformance DRIVERS=FILE
DRIVERS ?= $(shell grep -rl "(CloudConformance)" tests/unit tests/real)
conformance: $(READY)
	$(BIN)/python -m gridtide.testing.conformance --results docs/reference/conformance.json \
		--page docs/reference/conformance.md --run $(DRIVERS) \
		--know $(shell grep -rl "(CloudConformance)" tests/long)

mutate: $(READY)
	$(BIN)/python tools/mutate.py

lock:
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --allow-unsafe --quiet --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis mutants build var

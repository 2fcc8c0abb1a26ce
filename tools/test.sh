#!/bin/sh
# All tests: fast ones first, then those with real processes, databases and HTTP, then the benchmarks in small.
# What an engine needs (PostgreSQL), the tests install by themselves where they may.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/pytest -q -n auto tests/unit tests/scenarios
# Real sites want a core each: more at once would measure the machine and not the product.
.venv/bin/pytest -q -n 2 tests/real
.venv/bin/python -m benchmarks --quick

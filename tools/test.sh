#!/bin/sh
# All tests: fast ones first, then those with real processes, databases and HTTP, then the benchmarks in small.
# What an engine needs (PostgreSQL), the tests install by themselves where they may.
set -eu
cd "$(dirname "$0")/.."
.venv/bin/pytest -q -n auto tests/unit tests/scenarios
# Real sites mostly wait, but want a core each when they do not: more at once would measure the machine and not the
# product. A file's tests stay together, since they share pools, clusters and control planes.
.venv/bin/pytest -q -n 3 --dist loadfile tests/real
.venv/bin/python -m benchmarks --quick

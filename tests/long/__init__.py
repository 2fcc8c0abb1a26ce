"""Tests that take minutes and a quiet machine: ``make test-long``. The gate runs everything else."""

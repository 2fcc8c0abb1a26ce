"""Waits grow, are capped, are spread, and start anew."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gridtide.control.backoff import Backoff


@given(st.integers(0, 2**32), st.integers(1, 2000))
def test_every_wait_is_within_the_upper_half_of_its_ceiling(seed: int, failures: int) -> None:
    backoff = Backoff(Random(seed), first=0.5, limit=30.0)
    for number in range(failures):
        ceiling = min(30.0, 0.5 * 2.0 ** min(number, 64))
        assert ceiling / 2 <= backoff.failed() <= ceiling


def test_success_starts_from_the_beginning() -> None:
    backoff = Backoff(Random(1), first=1.0, limit=60.0)
    for _ in range(10):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failed() <= 1.0


def test_two_that_failed_together_do_not_come_back_together() -> None:
    one, other = Backoff(Random(1)), Backoff(Random(2))
    assert [one.failed() for _ in range(5)] != [other.failed() for _ in range(5)]

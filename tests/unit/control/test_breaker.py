"""What a cloud keeps refusing is not asked for, and one probe finds out when it is to be had again."""

from __future__ import annotations

import pytest

from gridtide.control.breaker import AFTER_NEVER_JOINED, AFTER_OUTAGE, AFTER_REFUSAL, LONGEST, Breaker, Key
from gridtide.errors import (
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)
from gridtide.model.ids import ShapeName, WorkerId

SMALL: Key = (None, ShapeName("small"))
LARGE: Key = (None, ShapeName("large"))
BOTH = (SMALL, LARGE)
SOLD_OUT = NoCapacity("sold out")
W1, W2 = WorkerId("w-1"), WorkerId("w-2")


def allowed(breaker: Breaker, key: Key, now: float) -> int | None:
    """How many launches may be tried; None: no limit."""
    health = breaker.health(BOTH, now).get(key)
    return None if health is None else health.allowed


def test_a_new_breaker_knows_nothing_bad() -> None:
    assert Breaker().health(BOTH, 0.0) == {}


@pytest.mark.parametrize(
    "error", [SOLD_OUT, QuotaExceeded("full", scope="cores"), LaunchRejected("no"), ImageNotFound("no image")]
)
def test_a_refusal_of_one_shape_leaves_the_others_alone(error: CloudError) -> None:
    breaker = Breaker()
    breaker.refused(SMALL, error, 100.0)
    assert allowed(breaker, SMALL, 100.0) == 0
    assert allowed(breaker, LARGE, 100.0) is None
    assert breaker.health(BOTH, 100.0)[SMALL].error == str(error)
    assert breaker.health(BOTH, 100.0)[SMALL].until == 100.0 + AFTER_REFUSAL


def test_an_outage_closes_every_shape_but_only_for_a_moment() -> None:
    breaker = Breaker()
    breaker.refused(SMALL, CloudUnavailable("503"), 100.0)
    assert allowed(breaker, SMALL, 100.0) == 0
    assert allowed(breaker, LARGE, 100.0) == 0
    assert allowed(breaker, LARGE, 100.0 + AFTER_OUTAGE) == 1


def test_a_throttled_cloud_is_left_alone_for_as_long_as_it_says() -> None:
    breaker = Breaker()
    breaker.refused(SMALL, Throttled("slow down", retry_after=120.0), 100.0)
    assert allowed(breaker, SMALL, 219.0) == 0
    assert allowed(breaker, SMALL, 220.0) == 1


def test_half_open_lets_exactly_one_probe_through() -> None:
    breaker = Breaker()
    breaker.refused(SMALL, SOLD_OUT, 0.0)
    later = AFTER_REFUSAL
    assert allowed(breaker, SMALL, later) == 1
    breaker.launching(W1, SMALL)
    assert allowed(breaker, SMALL, later) == 0
    breaker.launched(SMALL)
    assert allowed(breaker, SMALL, later) is None


def test_a_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    breaker, now, waits = Breaker(), 0.0, []
    for _ in range(12):
        breaker.refused(SMALL, SOLD_OUT, now)
        until = breaker.health(BOTH, now)[SMALL].until
        waits.append(until - now)
        now = until
        breaker.launching(W1, SMALL)
    assert waits[:3] == [AFTER_REFUSAL, 2 * AFTER_REFUSAL, 4 * AFTER_REFUSAL]
    assert waits[-1] == LONGEST


def test_the_failures_of_one_bulk_call_count_once() -> None:
    breaker = Breaker()
    for _ in range(200):
        breaker.refused(SMALL, SOLD_OUT, 10.0)
    assert breaker.health(BOTH, 10.0)[SMALL].until == 10.0 + AFTER_REFUSAL


def test_a_probe_that_ended_without_telling_anything_frees_its_place() -> None:
    breaker = Breaker()
    breaker.refused(SMALL, SOLD_OUT, 0.0)
    breaker.launching(W1, SMALL)
    breaker.ended(W2)
    assert allowed(breaker, SMALL, AFTER_REFUSAL) == 0
    breaker.ended(W1)
    assert allowed(breaker, SMALL, AFTER_REFUSAL) == 1


def test_dead_machines_are_not_forgiven_by_an_accepted_launch_but_by_one_that_joins() -> None:
    breaker = Breaker()
    breaker.never_joined(SMALL, 0.0, 600.0, "never joined")
    now = 600.0 + AFTER_NEVER_JOINED
    breaker.launching(W1, SMALL)
    breaker.launched(SMALL)
    assert allowed(breaker, SMALL, now) == 0
    breaker.joined(SMALL, now)
    assert allowed(breaker, SMALL, now) is None


def test_one_dead_machine_among_many_that_join_closes_nothing() -> None:
    breaker = Breaker()
    breaker.joined(SMALL, launched=50.0)
    breaker.never_joined(SMALL, 50.0, 650.0, "never joined")
    assert allowed(breaker, SMALL, 650.0) is None
    breaker.never_joined(SMALL, 51.0, 651.0, "never joined")
    assert allowed(breaker, SMALL, 651.0) == 0


def test_at_most_five_launches_in_an_hour_when_none_ever_joins() -> None:
    breaker, now, launches = Breaker(), 0.0, 0
    while now < 3600.0:
        if allowed(breaker, SMALL, now) != 0:
            launches += 1
            breaker.launching(W1, SMALL)
            breaker.launched(SMALL)
            launched, now = now, now + 600.0
            breaker.never_joined(SMALL, launched, now, "never joined")
        else:
            now += 1.0
    assert launches <= 5


def test_a_machine_that_broke_before_it_joined_is_a_refusal_told_late() -> None:
    """It opens for as long as a refusal does, and neither an accepted launch nor an older machine's join closes it."""
    breaker = Breaker()
    breaker.died(SMALL, 10.0, 12.0, "no host has room")
    assert breaker.health(BOTH, 12.0)[SMALL].until == 12.0 + AFTER_REFUSAL
    assert breaker.health(BOTH, 12.0)[SMALL].error == "no host has room"
    assert allowed(breaker, LARGE, 12.0) is None
    breaker.joined(SMALL, launched=9.0)
    assert allowed(breaker, SMALL, 12.0) == 0
    now = 12.0 + AFTER_REFUSAL
    breaker.launching(W1, SMALL)
    breaker.launched(SMALL)
    assert allowed(breaker, SMALL, now) == 0
    breaker.died(SMALL, now, now + 2.0, "no host has room")
    assert breaker.health(BOTH, now)[SMALL].until == now + 2.0 + 2 * AFTER_REFUSAL
    breaker.joined(SMALL, launched=now)
    assert allowed(breaker, SMALL, now) is None

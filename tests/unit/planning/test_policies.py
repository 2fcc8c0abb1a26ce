"""What each policy aims at."""

from __future__ import annotations

import pytest

from gridtide.model.reasons import Cause
from gridtide.model.rules import FixedPolicy, PerJobPolicy, QueuePolicy
from gridtide.model.snapshot import GroupMemory
from gridtide.planning.policies import Aim, Outlook, policy_of

NONE = GroupMemory()


def aim(parameters: QueuePolicy, waiting: int | None, since: float | None = None, now: float = 100.0) -> Aim:
    return policy_of(parameters).aim(Outlook(now, waiting, GroupMemory(since)))


def test_with_the_defaults_the_first_job_starts_a_worker() -> None:
    first = aim(QueuePolicy(), 1)
    assert first.patience is None
    assert first.memory.waiting_since == 100.0
    assert (first.count, first.jobs_per_worker, first.single_use, first.idle_for) == (None, None, False, 300.0)
    assert first.until is None


def test_the_parameters_are_passed_on() -> None:
    given = aim(QueuePolicy(jobs_per_worker=4, idle_for=7.0, deploy_time=9.0), 1)
    assert (given.jobs_per_worker, given.idle_for, given.deploy_time) == (4, 7.0, 9.0)


@pytest.mark.parametrize(("waiting", "starts"), [(0, False), (10, False), (11, True)])
def test_the_threshold(waiting: int, starts: bool) -> None:
    given = aim(QueuePolicy(threshold=10), waiting, since=50.0)
    assert (given.patience is None) is starts
    assert given.memory.waiting_since == (50.0 if starts else None)
    if given.patience is not None:
        assert given.patience.cause is Cause.BELOW_THRESHOLD
        assert f"{waiting} waiting, more than 10" in given.patience.text


@pytest.mark.parametrize(("since", "starts"), [(40.0, True), (40.1, False), (None, False)])
def test_the_waiting_time(since: float | None, starts: bool) -> None:
    given = aim(QueuePolicy(waiting_time=60.0), 1, since)
    assert (given.patience is None) is starts
    if given.patience is not None:
        assert given.patience.cause is Cause.DEBOUNCE
        assert given.until == (100.0 if since is None else since) + 60.0
        assert given.memory.waiting_since == (100.0 if since is None else since)
        assert given.patience.text == f"waited for {100 - (since or 100.0):.0f} s of 60 s"


def test_only_a_fresh_reading_begins_or_breaks_the_wait() -> None:
    policy = QueuePolicy(threshold=5, waiting_time=60.0)
    assert aim(policy, None).memory == NONE
    assert aim(policy, None, since=90.0).memory.waiting_since == 90.0
    assert aim(policy, None, since=90.0).until == 150.0
    broken = aim(policy, 5, since=90.0)
    assert broken.memory == NONE
    assert broken.until is None


def test_one_per_job() -> None:
    given = policy_of(PerJobPolicy(idle_for=5.0)).aim(Outlook(100.0, 3, GroupMemory(7.0)))
    assert given == Aim(memory=GroupMemory(7.0), jobs_per_worker=1, single_use=True, idle_for=5.0)


def test_a_constant_number() -> None:
    assert policy_of(FixedPolicy(4)).aim(Outlook(100.0, 3, NONE)) == Aim(memory=NONE, count=4)

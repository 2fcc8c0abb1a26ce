"""A policy of a package from elsewhere: what it aims at counts, and what it breaks stays in its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, nan

import pytest

from gridtide.errors import LaunchRejected
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import OtherPolicy
from gridtide.model.snapshot import GroupMemory
from gridtide.planning.policies import Aim, Outlook, PlugInPolicy, policy_of

OUTLOOK = Outlook(100.0, 7, GroupMemory(50.0))
GOOD = Aim(GroupMemory(60.0), count=3, until=110.0, jobs_per_worker=2, deploy_time=0.0, idle_for=20)


@dataclass(frozen=True, slots=True)
class Own(PlugInPolicy):
    """Answers as it is told."""

    answer: Callable[[Outlook], Aim]

    def aim(self, outlook: Outlook) -> Aim:
        return self.answer(outlook)


def aim(answer: Callable[[Outlook], Aim]) -> Aim:
    return policy_of(Own(answer)).aim(OUTLOOK)


def failed(given: Aim, words: str) -> None:
    assert given.patience is not None
    assert given.patience.cause is Cause.POLICY_FAILED
    assert words in given.patience.text
    assert given == Aim(OUTLOOK.memory, patience=given.patience), "nothing is launched, nobody is drained for idleness"


def test_its_aim_is_passed_on_as_it_is() -> None:
    seen: list[Outlook] = []

    def answer(outlook: Outlook) -> Aim:
        seen.append(outlook)
        return GOOD

    assert aim(answer) is GOOD
    assert seen == [OUTLOOK]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("by zero"), "the policy Own failed: ZeroDivisionError: by zero"),
        (KeyError(), "failed: KeyError"),
        (LaunchRejected("a driver's word"), "failed: a driver's word"),
    ],
)
def test_an_error_is_a_reason(error: Exception, words: str) -> None:
    def answer(_: Outlook) -> Aim:
        raise error

    failed(aim(answer), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": -1}, "count = -1"),
        ({"count": 2.5}, "count = 2.5"),
        ({"count": True}, "count = True"),
        ({"jobs_per_worker": 0}, "jobs_per_worker = 0"),
        ({"idle_for": nan}, "idle_for = nan"),
        ({"idle_for": -1.0}, "idle_for = -1.0"),
        ({"deploy_time": "1 s"}, "deploy_time = '1 s'"),
        ({"until": inf}, "until = inf"),
        ({"look_again": nan}, "look_again = nan"),
        ({"minimum": -1}, "minimum = -1"),
        ({"maximum": 1.0}, "maximum = 1.0"),
        ({"why": "because"}, "why = 'because'"),
        ({"memory": None}, "memory = None"),
        ({"spread": 0}, "spread = 0"),
        ({"ahead": 3}, "ahead = 3"),
        ({"early": 60.0}, "early = 60.0"),
        ({"patience": "later"}, "patience = 'later'"),
    ],
)
def test_an_impossible_aim_is_a_reason(change: dict[str, object], words: str) -> None:
    failed(aim(lambda _: replace(GOOD, **change)), words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"count": 0}, {"jobs_per_worker": 1}, {"idle_for": 0}, {"patience": Reason(Cause.DEBOUNCE, "wait")}]
)
def test_the_edges_are_possible(change: dict[str, object]) -> None:
    wanted = replace(GOOD, **change)  # type: ignore[arg-type]
    assert aim(lambda _: wanted) is wanted


def test_what_is_no_aim_or_no_policy_is_a_reason() -> None:
    failed(aim(lambda _: None), "aims at NoneType")  # type: ignore[arg-type,return-value]
    failed(policy_of(OtherPolicy()).aim(OUTLOOK), "no PlugInPolicy")

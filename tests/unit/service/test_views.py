"""Views: strict JSON whatever the values are."""

from __future__ import annotations

import dataclasses
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from gridtide.control.api import Explanation
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.model.rules import Wishes
from gridtide.model.snapshot import Heartbeat
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobId, JobRecord, JobState
from gridtide.service import views
from gridtide.service.answers import encode
from gridtide.service.glance import glance
from gridtide.store.ports import Event, Json, RecordedEvent
from tests.unit.service.site import GROUP, NOW, cycle, reason, rules, worker

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
ANY_JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_FLOAT | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner).map(tuple) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


def strict(value: Json) -> Json:
    """As a strict client reads it."""

    def no(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(encode(value), parse_constant=no)  # type: ignore[no-any-return]


@given(ANY_JSON)
def test_any_evidence_becomes_strict_json(value: Json) -> None:
    event = RecordedEvent(1, Event(NOW, "launch", "grid", "controller", reason(), "text", {"reading": value}, GROUP))
    strict(views.event(event))


@given(ANY_FLOAT)
def test_finite_numbers_stay_and_others_are_null(value: float) -> None:
    assert views.finite(value) == (value if math.isfinite(value) else None)


@given(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT)
def test_any_times_make_strict_json(one: float, two: float, now: float) -> None:
    odd = dataclasses.replace(worker("grid-1", WorkerState.JOINED), since=one, created=two, launched=one, joined=two)
    strict(views.worker(odd, now=now))
    strict(views.heartbeat(Heartbeat(one, 1, two, True), now=now))
    strict(views.explanation(Explanation("a", "b", "c", [(one, "x")])))
    record = JobRecord(
        JobId("1.0"), "anna", JobState.DONE, "a", Resources(1), 0, one, two, now, 1, WorkerId("w"), 0, "", one, 5
    )
    strict(views.job(record))
    strict(views.explanation(views.job_explanation(record)))
    strict(views.plan(cycle({}), now))
    seen = glance(dataclasses.replace(cycle({}), seconds=one), rules())
    strict(views.status("torino", rules(), {}, {}, seen, None, now))


def test_wishes_go_before_the_site_file() -> None:
    group = rules().groups[GROUP]
    assert views.limits(group, Wishes()) == {"minimum": 1, "maximum": 8, "desired": None}
    assert views.limits(group, Wishes(minimum=0, maximum=3, desired=2)) == {"minimum": 0, "maximum": 3, "desired": 2}


def test_a_group_counts_its_own_workers_in_every_state() -> None:
    number = {
        (GROUP, WorkerState.JOINED): 2,
        (GROUP, WorkerState.DRAINING): 1,
        (GroupName("other"), WorkerState.JOINED): 1,
    }
    shown = views.group(rules().groups[GROUP], Wishes(), number, None)
    counts = shown["workers"]
    assert isinstance(counts, dict)
    assert {state: count for state, count in counts.items() if count} == {"joined": 2, "draining": 1}
    assert set(counts) == set(WorkerState) - {WorkerState.GONE}
    assert shown["reason"] is None


def test_a_reading_in_the_future_has_no_negative_age() -> None:
    snapshot = cycle({}).snapshot
    assert all(source.age is None or source.age >= 0 for source in views.sources(snapshot, NOW - 1000))

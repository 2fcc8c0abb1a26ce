"""When a worker that has not joined is given up, and how long its join token is good."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.boots import BootKey, BootTimes
from gridtide.planning.joining import LONGEST, SHORTEST, join_deadline, token_life
from tests.unit.planning.worlds import group, worker

WORKER = replace(worker(), image="thin")
SAME = BootKey(WORKER.cloud, WORKER.shape.name, "thin")
ALIKE = BootKey(WORKER.cloud, None, "thin")
ANY = BootKey(WORKER.cloud, None, None)


def times(count: int, p95: float = 30.0, longest: float = 30.0) -> BootTimes:
    if count == 0:
        return BootTimes(0, None, None, None, longest)
    return BootTimes(count, p95 / 2, p95, 0.0, longest)


@pytest.mark.parametrize(
    ("same", "alike", "seconds"),
    [
        (None, None, 600.0),
        (times(4), None, 600.0),
        (times(5), None, 90.0),
        (times(5, 2.0, 2.0), None, 60.0),
        (times(200, 30.0, 100.0), None, 200.0),
        (times(200, 30.0, 4000.0), None, 3600.0),
        (times(200, 2000.0, 2000.0), None, 3600.0),
        (times(0, longest=600.0), None, 1200.0),
        (times(4, 30.0, 400.0), None, 800.0),
        (None, times(5), 90.0),
        (times(4), times(200, 40.0), 120.0),
        (times(200, 20.0, 20.0), times(200, 90.0, 90.0), 60.0),
        (times(0, longest=120.0), times(200, 20.0, 20.0), 240.0),
        (times(0, longest=20.0), times(200, 20.0, 120.0), 240.0),
        (None, times(4, 30.0, 500.0), 600.0),
    ],
)
def test_it_is_learned(same: BootTimes | None, alike: BootTimes | None, seconds: float) -> None:
    known = {key: found for key, found in ((SAME, same), (ALIKE, alike)) if found is not None}
    assert join_deadline(group(join_deadline=None), WORKER, known) == seconds


def test_boots_of_another_image_shape_or_cloud_are_not_asked() -> None:
    known = {
        ANY: times(200),
        BootKey(WORKER.cloud, WORKER.shape.name, "thick"): times(200),
        BootKey(WORKER.cloud, WORKER.shape.name, None): times(200),
    }
    assert join_deadline(group(join_deadline=None), WORKER, known) == 600.0


def test_without_images_any_shape_of_the_cloud_will_do() -> None:
    assert join_deadline(group(join_deadline=None), worker(), {ANY: times(5)}) == 90.0


def test_what_the_site_file_says_counts() -> None:
    assert join_deadline(group(join_deadline=42.0), WORKER, {SAME: times(200, 1.0, 900.0)}) == 42.0


def test_a_worker_without_a_group_waits_for_nothing() -> None:
    assert join_deadline(None, WORKER, {SAME: times(200)}) == 0.0


@given(
    set_to=st.none() | st.floats(1.0, 1e6),
    found=st.none() | st.builds(times, st.integers(0, 200), st.floats(0.0, 1e6), st.floats(0.0, 1e6)),
)
def test_a_token_outlives_every_deadline_of_its_worker(set_to: float | None, found: BootTimes | None) -> None:
    rules = group(join_deadline=set_to)
    deadline = join_deadline(rules, WORKER, {} if found is None else {SAME: found})
    assert deadline + 60.0 <= token_life(rules)
    assert set_to is not None or SHORTEST <= deadline <= LONGEST

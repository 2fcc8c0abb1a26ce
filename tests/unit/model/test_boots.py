"""Phases add up, nonsense is not believed, quantiles are the usual ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.boots import BootKey, BootReport, Phase, phases_of, quantile
from gridtide.model.ids import CloudName, ShapeName

ANY = st.none() | st.floats(allow_nan=True, allow_infinity=True)
SECONDS = st.floats(min_value=0.0, max_value=1e6)
SOUND = st.lists(st.floats(min_value=0.0, max_value=100.0), min_size=4, max_size=4).map(
    lambda points: BootReport(*sorted(points))
)


@given(
    launched=SECONDS,
    took=SECONDS,
    answered=st.none() | SECONDS,
    report=st.none() | st.builds(BootReport, ANY, ANY, ANY, ANY) | SOUND,
)
def test_phases_add_up_and_none_is_negative(
    launched: float, took: float, answered: float | None, report: BootReport | None
) -> None:
    joined = launched + took
    phases = phases_of(launched, answered, joined, report)
    assert math.isclose(sum(phases.values()), joined - launched, rel_tol=1e-9, abs_tol=1e-6)
    assert all(seconds >= 0.0 for seconds in phases.values())


def test_each_phase_lies_between_two_points() -> None:
    phases = phases_of(100.0, 100.5, 107.0, BootReport(user_space=2.0, context=3.0, agent=3.5, now=5.0))
    assert phases == {
        Phase.CLOUD: 0.5,
        Phase.FIRMWARE: 1.5,
        Phase.KERNEL: 2.0,
        Phase.USER_SPACE: 1.0,
        Phase.CONTEXT: 0.5,
        Phase.JOIN: 1.5,
    }


def test_what_a_machine_does_not_tell_is_part_of_the_next_phase() -> None:
    assert phases_of(100.0, 100.5, 107.0, BootReport(context=3.0, now=5.0)) == {
        Phase.CLOUD: 0.5,
        Phase.FIRMWARE: 1.5,
        Phase.USER_SPACE: 3.0,
        Phase.JOIN: 2.0,
    }


def test_a_kernel_that_began_before_the_clouds_answer_ends_the_clouds_phase() -> None:
    phases = phases_of(100.0, 104.0, 107.0, BootReport(1.0, 2.0, 3.0, 5.0))
    assert (phases[Phase.CLOUD], phases[Phase.FIRMWARE]) == (2.0, 0.0)


@pytest.mark.parametrize(
    "report",
    [
        BootReport(3.0, 2.0, 4.0, 5.0),
        BootReport(-1.0, 2.0, 3.0, 4.0),
        BootReport(1.0, 2.0, 3.0, 7.1),
        BootReport(1.0, 2.0, math.nan, 4.0),
        BootReport(1.0, 2.0, 3.0, math.inf),
        BootReport(1.0, 2.0, 3.0, None),
    ],
    ids=["out of order", "negative", "longer than the boot", "no number", "for ever", "not placed"],
)
def test_a_report_that_cannot_be_true_is_not_believed(report: BootReport) -> None:
    assert phases_of(100.0, 101.0, 107.0, report) == {Phase.CLOUD: 1.0, Phase.JOIN: 6.0}


@given(report=SOUND, total=st.floats(min_value=0.0, max_value=200.0))
def test_a_sound_report_is_believed_in_full(report: BootReport, total: float) -> None:
    assert report.now is not None
    phases = phases_of(0.0, None, total, report)
    assert (set(phases) == set(Phase)) == (report.now <= total)


def test_wider_kinds_of_boots() -> None:
    cloud, shape = CloudName("c"), ShapeName("s")
    whole = BootKey(cloud, None, None)
    assert BootKey(cloud, shape, "i").wider() == (BootKey(cloud, shape, "i"), BootKey(cloud, None, "i"), whole)
    assert BootKey(cloud, shape, None).wider() == (BootKey(cloud, shape, None), whole)
    assert whole.wider() == (whole,)


def test_a_clock_that_went_back_gives_no_negative_boot() -> None:
    assert phases_of(100.0, None, 90.0, None) == {Phase.CLOUD: 0.0, Phase.JOIN: 0.0}


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([5.0], 0.95, 5.0), ([1.0, 2.0], 0.5, 1.5), ([1.0, 2.0, 3.0, 4.0], 0.25, 1.75), (list(range(101)), 0.95, 95.0)],
)
def test_quantiles(values: list[float], part: float, expected: float) -> None:
    assert quantile(values, part) == expected


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)

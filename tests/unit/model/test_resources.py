"""Amounts: the arithmetic that everything is fitted with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.resources import Resources

amounts = st.builds(Resources, *[st.integers(0, 100)] * 4)


@pytest.mark.parametrize("field", ["cores", "memory", "disk", "gpus"])
def test_nothing_is_negative(field: str) -> None:
    assert getattr(Resources(**{field: 0}), field) == 0
    with pytest.raises(ValueError, match="cannot be negative"):
        Resources(**{field: -1})


@pytest.mark.parametrize("field", ["cores", "memory", "disk", "gpus"])
def test_each_component_limits(field: str) -> None:
    have = Resources(10, 10, 10, 10)
    assert have.covers(Resources(**{field: 10}))
    assert not have.covers(Resources(**{field: 11}))
    assert have.how_many(Resources(**{field: 3})) == 3
    assert have.how_many(Resources(**{field: 11})) == 0


def test_the_scarcest_component_decides() -> None:
    assert Resources(8, 16, 100, 1).how_many(Resources(1, 4, 10, 0)) == 4
    assert Resources(8, 16, 100, 1).how_many(Resources(1, 1, 50, 1)) == 1


def test_a_need_of_nothing_has_no_count() -> None:
    with pytest.raises(ValueError, match="needs nothing"):
        Resources(1).how_many(Resources())


def test_sum_difference_and_multiple() -> None:
    one, two = Resources(1, 2, 3, 4), Resources(10, 20, 30, 40)
    assert one.plus(two) == Resources(11, 22, 33, 44)
    assert two.minus(one) == Resources(9, 18, 27, 36)
    assert one.times(3) == Resources(3, 6, 9, 12)
    with pytest.raises(ValueError, match="negative"):
        one.minus(two)


@given(amounts, amounts)
def test_what_fits_is_covered_and_one_more_is_not(have: Resources, want: Resources) -> None:
    if want == Resources():
        assert have.covers(want)
        return
    number = have.how_many(want)
    assert have.covers(want.times(number))
    assert not have.covers(want.times(number + 1))
    assert have.minus(want.times(number)).plus(want.times(number)) == have


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        (Resources(1), "1 core"),
        (Resources(2, 4096), "2 cores, 4 GiB memory"),
        (Resources(0, 1500), "0 cores, 1500 MiB memory"),
        (Resources(1, 1024, 2048, 1), "1 core, 1 GiB memory, 2 GiB disk, 1 GPU"),
        (Resources(1, 0, 1, 2), "1 core, 1 MiB disk, 2 GPUs"),
    ],
)
def test_how_amounts_are_written(resources: Resources, text: str) -> None:
    assert str(resources) == text

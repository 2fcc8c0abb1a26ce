"""Chance gives the same bits everywhere, and the right distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.sim.chance import Chance, exp, log, power


@given(st.floats(-700, 700))
def test_exp_is_that_of_the_library_to_the_last_digits(x: float) -> None:
    assert exp(x) == pytest.approx(math.exp(x), rel=1e-15, abs=0.0)


@given(st.floats(1e-300, 1e300))
def test_log_is_that_of_the_library_to_the_last_digits(x: float) -> None:
    assert log(x) == pytest.approx(math.log(x), rel=1e-15, abs=1e-15)


def test_edges() -> None:
    assert (exp(0.0), exp(-1e4), log(1.0)) == (1.0, 0.0, 0.0)
    assert power(2.0, 10.0) == pytest.approx(1024.0, rel=1e-14)
    with pytest.raises(OverflowError):
        exp(710.0)
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="not positive"):
            log(wrong)


def test_the_bits_are_written_down() -> None:
    chance = Chance(7, "boot")
    drawn = [
        chance.uniform(),
        chance.normal(),
        chance.lognormal(120, 0.25),
        chance.gamma(4.2, 0.94),
        chance.pareto(1, 2),
    ]
    assert [value.hex() for value in drawn] == [
        "0x1.a8ee4ccff25f6p-2",
        "-0x1.65abc0893a751p+0",
        "0x1.73f513f05cf1bp+6",
        "0x1.924c250f77ce4p+1",
        "0x1.d253e060cf061p+0",
    ]


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda chance: chance.uniform(2.0, 4.0), 3.0, 2.0 / math.sqrt(12.0)),
        (lambda chance: chance.exponential(5.0), 5.0, 5.0),
        (lambda chance: chance.normal(1.0, 2.0), 1.0, 2.0),
        (lambda chance: chance.gamma(4.2, 0.94), 4.2 * 0.94, math.sqrt(4.2) * 0.94),
        (lambda chance: chance.gamma(0.5, 2.0), 1.0, math.sqrt(0.5) * 2.0),
        (lambda chance: chance.lognormal(120.0, 0.25), 120.0 * math.exp(0.03125), 31.4),
        (lambda chance: chance.pareto(1.0, 4.0), 4.0 / 3.0, math.sqrt(2.0 / 9.0)),
        (lambda chance: float(chance.geometric(3.0)), 3.0, math.sqrt(6.0)),
        (lambda chance: float(chance.happens(0.3)), 0.3, math.sqrt(0.21)),
        (lambda chance: float(chance.below(4)), 1.5, math.sqrt(1.25)),
    ],
)
def test_means_and_deviations(draw: Callable[[Chance], float], mean: float, deviation: float) -> None:
    chance = Chance(1)
    drawn = [draw(chance) for _ in range(20_000)]
    found = sum(drawn) / len(drawn)
    assert found == pytest.approx(mean, abs=4.5 * deviation / math.sqrt(len(drawn)))
    assert math.sqrt(sum((x - found) ** 2 for x in drawn) / len(drawn)) == pytest.approx(deviation, rel=0.1)


def test_streams_of_one_seed_have_nothing_in_common() -> None:
    first = [Chance(1, "a").uniform() for _ in range(3)]
    assert first == [Chance(1, "a").uniform() for _ in range(3)]
    assert Chance(1, "a").uniform() != Chance(1, "b").uniform() != Chance(2, "a").uniform()
    assert Chance(1).geometric(1.0) == 1

"""What is learned of a group's load: rises, lulls, and what they make worth keeping."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.snapshot import Level
from gridtide.planning.policies.learning import (
    EDGES,
    KEEPINGS,
    LEAST,
    LULLS_REMEMBERED,
    REMEMBERED,
    SPANS,
    TOGETHER,
    UNKNOWN_KEEPING,
    best_keeping,
    learned,
    likely_rise,
    worth_keeping,
)

BOOT = 100.0


def after(*looks: tuple[float, float]) -> Level:
    """Looks at the load, each with its second."""
    level: Level | None = None
    for now, load in looks:
        level = learned(level, load, now, BOOT)
    assert level is not None
    return level


def counts(level: Level, span: int = 0) -> dict[int, float]:
    return {edge: count for edge, count in zip(EDGES, level.rises[span].counts, strict=True) if count}


# --- rises


def test_the_highest_within_a_time_counts_from_where_it_began() -> None:
    level = after((0, 10), (50, 14), (99, 9), (100, 9))
    assert counts(level) == {4: 1.0}
    assert (level.rises[0].since, level.rises[0].base, level.rises[0].top) == (100, 9, 9)
    assert counts(level, 1) == {}
    assert (level.rises[1].since, level.rises[1].base, level.rises[1].top) == (0, 10, 14)


def test_a_fall_is_no_rise() -> None:
    assert counts(after((0, 10), (100, 0))) == {0: 1.0}


@pytest.mark.parametrize(("rise", "edge"), [(0, 0), (1, 1), (5, 6), (6, 6), (7, 8), (10**9, EDGES[-1])])
def test_rises_are_rounded_up(rise: int, edge: int) -> None:
    assert counts(after((0, 10), (100, 10 + rise))) == {edge: 1.0}


def test_every_span_has_times_of_its_own() -> None:
    level = after(*((100 * number, 10) for number in range(9)))
    assert [sum(rise.counts) for rise in level.rises] == pytest.approx([8, 4, 2, 1], rel=0.1)


def test_who_looks_seldom_has_seen_that_many_times() -> None:
    level = after((0, 10), (300, 12))
    assert counts(level) == {0: 2.0, 2: 1.0}


def test_who_was_blind_for_a_day_has_learned_little() -> None:
    level = after((0, 10), (86_400, 12))
    assert counts(level) == {0: 9.0, 2: 1.0}


def test_the_latest_counts_most() -> None:
    level = after((0, 0), (100, 6), (200, 0), (300, 0))
    kept = REMEMBERED / (REMEMBERED + 1)
    assert counts(level) == {6: kept * kept, 0: kept + 1.0}


def test_the_same_moment_again_changes_nothing_but_the_load() -> None:
    before = after((0, 10), (100, 12))
    assert learned(before, 12.0, 100.0, BOOT) == before
    assert learned(before, 15.0, 100.0, BOOT).rises[0].top == 15.0


def _with(level: Level, span: int, odds: dict[int, float]) -> Level:
    rises = list(level.rises)
    rises[span] = replace(rises[span], counts=tuple(100.0 * odds.get(edge, 0.0) for edge in EDGES))
    return replace(level, rises=tuple(rises))


def test_a_likely_rise_is_one_above_the_odds() -> None:
    level = _with(after((0, 0)), 0, {0: 0.8, 4: 0.12, 16: 0.08})
    assert [likely_rise(level, odds) for odds in (0.05, 0.08, 0.1, 0.2, 0.3, 1.0)] == [16, 4, 4, 0, 0, 0]


def test_nothing_is_likely_before_it_was_seen_often() -> None:
    level = after(*((BOOT * number, 8 * number) for number in range(int(LEAST) + 1)))
    assert likely_rise(level, 0.1) == 0
    assert likely_rise(learned(level, 99.0, BOOT * (LEAST + 1), BOOT), 0.1) > 0
    enough = replace(level.rises[0], counts=tuple(LEAST * (edge == 8) for edge in EDGES))
    assert likely_rise(replace(level, rises=(enough, *level.rises[1:])), 0.1) == 8


def test_the_longer_the_time_the_better_the_odds_must_be() -> None:
    """A core that is wanted within eight boots costs up to eight of them."""
    lost = 10 * BOOT
    level = after((0, 0))
    for number, span in enumerate(SPANS):
        assert worth_keeping(_with(level, number, {0: 1 - span / 10, 8: span / 10}), lost, BOOT) == 0
        assert worth_keeping(_with(level, number, {0: 0.99 - span / 10, 8: 0.01 + span / 10}), lost, BOOT) == 8


def test_the_span_that_wants_most_decides() -> None:
    level = _with(_with(after((0, 0)), 0, {0: 0.8, 4: 0.2}), 2, {0: 0.5, 12: 0.5})
    assert worth_keeping(level, 10 * BOOT, BOOT) == 12
    assert worth_keeping(level, 7 * BOOT, BOOT) == 4


def test_nothing_is_kept_longer_than_what_is_lost_without_it() -> None:
    assert worth_keeping(_with(after((0, 0)), 3, {8: 1.0}), 8 * BOOT, BOOT) == 0


# --- lulls


def test_what_was_wanted_last_is_wanted_first() -> None:
    level = after((0, 10), (100, 7), (200, 5), (250, 8))
    kept = LULLS_REMEMBERED / (LULLS_REMEMBERED + 50)
    assert level.unused == ((100, 2.0),)
    assert level.lulls[0] == 2.0  # of those of 200 s, 50 s later
    assert level.lulls[KEEPINGS.index(180.0)] == 1.0  # of those of 100 s
    assert kept < 1.0
    assert learned(level, 8.0, 300.0, BOOT).lulls[0] == 2.0 * kept


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    level = after((0, 10), (100, 7), (150, 10))
    assert learned(level, 10.0, 50.0, BOOT).lulls == level.lulls


def test_more_than_was_ever_wanted_is_no_lull() -> None:
    level = after((0, 10), (100, 7), (150, 30))
    assert (level.unused, sum(level.lulls)) == ((), 3.0)


def test_what_is_unwanted_at_about_the_same_time_is_one_lot() -> None:
    soon, later = 100 + TOGETHER - 1, 100 + TOGETHER
    level = after((0, 10), (100, 7), (soon, 5), (later, 4), (later + 1, 3))
    assert level.unused == ((100, 5.0), (later, 2.0))


def test_what_is_not_wanted_for_half_an_hour_never_was() -> None:
    level = after((0, 10), (100, 7))
    assert learned(level, 7.0, 100.0 + KEEPINGS[-1], BOOT).unused == level.unused
    gone = learned(level, 7.0, 101.0 + KEEPINGS[-1], BOOT)
    assert (gone.unused, gone.lulls[-1]) == ((), 3.0)


@given(
    lulls=st.lists(st.integers(0, 1000), min_size=len(KEEPINGS) + 1, max_size=len(KEEPINGS) + 1),
    lost=st.floats(1.0, 10_000.0),
)
def test_the_best_keeping_is_the_one_that_would_have_cost_least(lulls: list[int], lost: float) -> None:
    level = replace(after((0, 0)), lulls=tuple(map(float, lulls)))
    if sum(lulls) < 10:
        assert best_keeping(level, lost) == UNKNOWN_KEEPING
        return
    middles = [(start + end) / 2 for start, end in zip((0.0, *KEEPINGS), KEEPINGS, strict=False)] + [float("inf")]

    def cost(keeping: float) -> float:
        return sum(
            number * (middle if middle < keeping else keeping + lost)
            for number, middle in zip(lulls, middles, strict=True)
            if number
        )

    chosen = best_keeping(level, lost)
    assert chosen in KEEPINGS
    assert cost(chosen) == pytest.approx(min(cost(keeping) for keeping in KEEPINGS))


@given(
    looks=st.lists(st.tuples(st.floats(0.0, 5000.0), st.integers(0, 300)), min_size=1, max_size=60),
)
def test_no_core_is_counted_twice(looks: list[tuple[float, int]]) -> None:
    level: Level | None = None
    now, fallen, before = 0.0, 0, 0
    for passed, load in looks:
        now += passed
        fallen += max(before - load, 0) if level is not None else 0
        before = load
        level = learned(level, float(load), now, BOOT)
        unused = sum(number for _, number in level.unused)
        assert unused + sum(level.lulls) <= fallen + 1e-6
        assert unused + load <= 300 + fallen
        assert all(number > 0 for _, number in level.unused)
        assert [since for since, _ in level.unused] == sorted(since for since, _ in level.unused)
        assert len(level.unused) <= KEEPINGS[-1] / TOGETHER + 2
        assert all(number >= 0 for rise in level.rises for number in rise.counts)

"""Which cloud and which shapes: by the order written, by the price, by what stays unused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.actions import Launch
from gridtide.model.costs import Choose
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import CloudView
from gridtide.planning.eta import eta_of
from tests.unit.planning.worlds import GRID, World, brief, fresh, group, row, site


def shape(cores: int, price: float) -> Shape:
    return Shape(ShapeName(f"c{cores}"), Resources(cores, 2048 * cores), price)


def world(
    choose: Choose,
    jobs: int,
    private: Sequence[Shape],
    burst: Sequence[Shape] = (),
    *,
    maximum: int = 50,
    limit: float | None = None,
) -> World:
    clouds = ("private", "burst")
    mine = replace(group(clouds=clouds, shapes=(), maximum=maximum), choose=choose, price_limit=limit)
    names = sorted({each.name for each in (*private, *burst)})
    return World(
        rules=site(mine, clouds=clouds),
        demand=[row(jobs, runs_on=[("grid", name) for name in names])],
        shapes=private,
        clouds={"burst": CloudView(fresh(()), fresh(tuple(burst)))},
    )


def launched(made: World) -> list[str]:
    return sorted(f"{each.count} {each.cloud} {each.shape.name}" for each in made.actions() if isinstance(each, Launch))


DEAR, CHEAP = [shape(8, 0.80), shape(2, 0.20)], [shape(8, 0.32), shape(2, 0.10)]


@pytest.mark.parametrize("choose", list(Choose))
def test_ten_slots_are_not_two_machines_of_eight(choose: Choose) -> None:
    assert launched(world(choose, 10, DEAR)) == ["1 private c2", "1 private c8"]


@pytest.mark.parametrize(
    ("choose", "jobs", "expected"),
    [
        (Choose.ORDER, 10, ["1 private c2", "1 private c8"]),
        (Choose.PRICE, 10, ["1 burst c2", "1 burst c8"]),
        (Choose.FILL, 10, ["1 burst c2", "1 burst c8"]),
        (Choose.PRICE, 7, ["1 burst c8"]),  # 0.32, and four small ones would be 0.40
        (Choose.FILL, 7, ["1 burst c8"]),  # one slot unused either way: the one machine
        (Choose.PRICE, 6, ["3 burst c2"]),  # 0.30 beats 0.32
        (Choose.FILL, 6, ["3 burst c2"]),
        (Choose.PRICE, 1, ["1 burst c2"]),
    ],
)
def test_which_machines(choose: Choose, jobs: int, expected: list[str]) -> None:
    assert launched(world(choose, jobs, DEAR, CHEAP)) == expected


def test_price_takes_the_cheaper_job_where_fill_leaves_less_unused() -> None:
    private, burst = [shape(3, 0.30)], [shape(4, 0.20)]
    assert launched(world(Choose.PRICE, 3, private, burst)) == ["1 burst c4"]
    assert launched(world(Choose.FILL, 3, private, burst)) == ["1 private c3"]
    assert launched(world(Choose.ORDER, 3, private, burst)) == ["1 private c3"]


def test_order_keeps_to_the_first_cloud_however_much_stays_unused() -> None:
    private, burst = [shape(8, 0.80)], [shape(1, 0.01)]
    assert launched(world(Choose.ORDER, 1, private, burst)) == ["1 private c8"]
    assert launched(world(Choose.FILL, 1, private, burst)) == ["1 burst c1"]
    assert launched(world(Choose.PRICE, 1, private, burst)) == ["1 burst c1"]


@pytest.mark.parametrize("choose", [Choose.PRICE, Choose.FILL])
def test_among_equals_what_is_cheaper_and_then_the_order_decides(choose: Choose) -> None:
    assert launched(world(choose, 8, [shape(4, 0.4)], [shape(4, 0.2)])) == ["2 burst c4"]
    assert launched(world(choose, 8, [shape(4, 0.2)], [shape(4, 0.2)])) == ["2 private c4"]
    assert launched(world(choose, 8, [shape(2, 0.2)], [shape(4, 0.4)])) == ["4 private c2"]


def test_equal_prices_are_equal_in_spite_of_fractions() -> None:
    """Three times 0.1 is a little more than 0.3 for a computer: no reason for another machine."""
    assert launched(world(Choose.PRICE, 3, [shape(1, 0.1), shape(3, 0.3)])) == ["1 private c3"]
    assert launched(world(Choose.PRICE, 3, [shape(3, 0.1 + 0.2), shape(1, 0.1)])) == ["1 private c3"]


def test_the_dearer_cloud_serves_what_the_cheaper_one_has_no_room_for() -> None:
    made = world(Choose.PRICE, 10, [shape(2, 0.2)], [shape(2, 0.1)])
    view = CloudView(fresh(()), fresh((shape(2, 0.1),)), zones=())
    held = made.but(clouds={"burst": view})
    lines = launched(held)
    assert lines == ["5 private c2"]
    (launch,) = held.actions()
    assert (
        "choose = price: c2 of cloud private costs 0.1 per core and hour; cloud burst refuses c2" in launch.reason.text
    )


def test_too_dear_is_said_and_not_launched() -> None:
    made = world(Choose.ORDER, 2, [shape(2, 0.4)], [shape(2, 0.2)], limit=0.15)
    assert launched(made) == ["1 burst c2"]
    assert (
        "cloud private: c2 costs 0.2 per core and hour, group grid pays at most 0.15" in made.actions()[0].reason.text
    )
    none = world(Choose.ORDER, 2, [shape(2, 0.4)], limit=0.15)
    assert launched(none) == []
    why = none.plan().why_group[GRID]
    assert why.cause is Cause.TOO_DEAR
    assert eta_of(none.snapshot(), none.rules, GRID).obstacle is not None
    assert launched(world(Choose.ORDER, 2, [shape(2, 0.4)], limit=0.2)) == ["1 private c2"]


def test_of_the_last_jobs_the_sum_is_compared_and_not_what_stays_unused() -> None:
    assert launched(world(Choose.PRICE, 6, [shape(8, 0.28), shape(2, 0.10)])) == ["1 private c8"]
    assert launched(world(Choose.FILL, 6, [shape(8, 0.28), shape(2, 0.10)])) == ["3 private c2"]


def test_a_cloud_that_has_room_is_not_excused() -> None:
    made = world(Choose.PRICE, 1, [shape(2, 0.10)], [shape(8, 0.32)])
    (launch,) = made.actions()
    assert brief([launch]) == ["launch 1 grid private c2 demand"]
    assert "burst" not in launch.reason.text


def test_a_minimum_is_filled_from_the_cheapest() -> None:
    made = world(Choose.PRICE, 0, [shape(2, 0.2)], [shape(2, 0.1)])
    mine = replace(made.rules.groups[GRID], minimum=2)
    assert launched(made.but(demand=[], rules=replace(made.rules, groups={GRID: mine}))) == ["2 burst c2"]


def both_ways(rules: SiteRules) -> SiteRules:
    """A second group of the same queue that chooses by price."""
    other = replace(rules.groups[GRID], name=GroupName("second"), choose=Choose.PRICE)
    return replace(rules, groups={**rules.groups, other.name: other})


def test_groups_of_one_queue_may_choose_in_different_ways() -> None:
    made = world(Choose.FILL, 4, [shape(4, 0.4)], [shape(8, 0.2)])
    offers = [(name, shape) for name in ("grid", "second") for shape in ("c4", "c8")]
    made = made.but(rules=both_ways(made.rules), demand=[row(4, runs_on=offers)])
    assert brief(made.actions()) == ["launch 1 grid private c4 demand"], "by what stays unused: prices say nothing here"


def test_then_what_leaves_less_unused_is_taken_whoever_chose_it() -> None:
    made = world(Choose.FILL, 4, [shape(4, 0.4)], [shape(8, 0.2)])
    made = made.but(rules=both_ways(made.rules), demand=[row(4, runs_on=[("grid", "c8"), ("second", "c4")])])
    assert brief(made.actions()) == ["launch 1 second private c4 demand"]


shapes = st.builds(shape, st.integers(1, 16), st.sampled_from([0.05, 0.1, 0.3, 0.8]))
offered = st.lists(shapes, min_size=1, max_size=3, unique_by=lambda each: each.name)


@given(choose=st.sampled_from(list(Choose)), jobs=st.integers(1, 60), private=offered, burst=offered)
def test_every_job_gets_a_place_whatever_decides(
    choose: Choose, jobs: int, private: list[Shape], burst: list[Shape]
) -> None:
    made = [each for each in world(choose, jobs, private, burst, maximum=200).actions() if isinstance(each, Launch)]
    slots = sum(each.count * each.shape.resources.cores for each in made)
    largest = max(each.shape.resources.cores for each in made)
    assert jobs <= slots < jobs + largest

"""Fair parts: what weighted max-min promises, and what a plan makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.model.actions import Drain, Launch
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import GroupRules, QueuePolicy
from gridtide.model.workers import WorkerState
from gridtide.planning.sharing import Claim, fair_parts
from tests.unit.planning.worlds import LARGE, NOW, SMALL, World, brief, group, node, row, site, worker

S = WorkerState
ALMOST = 1e-6


def claim(name: str, wants: float, share: float = 1.0, least: float = 0.0) -> Claim:
    return Claim(GroupName(name), share, wants, least)


@pytest.mark.parametrize(
    ("capacity", "claims", "parts"),
    [
        (12, [claim("a", 50), claim("b", 50)], [6, 6]),
        (12, [claim("a", 50), claim("b", 50, share=2)], [4, 8]),
        (12, [claim("a", 2), claim("b", 50)], [2, 10]),
        (12, [claim("a", 2), claim("b", 3)], [2, 3]),
        (12, [claim("a", 1), claim("b", 50), claim("c", 50)], [1, 5.5, 5.5]),
        (12, [claim("a", 50, least=1), claim("b", 8, least=8)], [4, 8]),
        (7, [claim("a", 50, least=1), claim("b", 8, least=8)], [7, 0]),
        (0, [claim("a", 50), claim("b", 50)], [0, 0]),
        (5, [], []),
    ],
)
def test_parts(capacity: float, claims: Sequence[Claim], parts: list[float]) -> None:
    assert list(fair_parts(capacity, claims).values()) == pytest.approx(parts)


claims_drawn = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.sampled_from([0, 1, 2, 8])), max_size=6
).map(lambda rows: [claim(f"g{n}", wants, share, least) for n, (wants, share, least) in enumerate(rows)])


@given(st.integers(0, 100), claims_drawn)
def test_fair_parts_are_fair(capacity: int, claims: list[Claim]) -> None:
    parts = fair_parts(capacity, claims)
    left = float(capacity)
    served = []
    for each in claims:
        if min(each.least, each.wants) <= left:
            served.append(each)
            left -= min(each.least, each.wants)
    assert sum(parts.values()) == pytest.approx(min(capacity, sum(each.wants for each in served))), "all is given out"
    left = float(capacity)
    for each in served:
        mine = parts[each.group]
        assert -ALMOST <= mine <= each.wants + ALMOST, "nobody gets more than it wants"
        floor = min(each.least, each.wants)
        if floor <= left:
            left -= floor
            assert mine >= floor - ALMOST, "nobody starves"
        if mine < each.wants - ALMOST:
            for other in served:
                theirs = parts[other.group]
                more = theirs / other.share > mine / each.share + ALMOST
                assert not more or theirs <= min(other.least, other.wants) + ALMOST, "nobody has more for its share"


@given(st.integers(0, 60), claims_drawn)
def test_more_to_share_makes_nobody_poorer(capacity: int, claims: list[Claim]) -> None:
    plain = [claim(each.group, each.wants, each.share) for each in claims]
    less, more = fair_parts(capacity, plain), fair_parts(capacity + 5, plain)
    assert all(more[name] >= less[name] - ALMOST for name in less)


# --- plans

ONE = Shape(ShapeName("one"), Resources(1, 1024))
SHAPES = [ONE, SMALL, LARGE]


def sizes(actions: Sequence[object]) -> Counter[str]:
    return Counter(
        {
            name: sum(each.count * each.shape.resources.cores for each in actions if each.group == name)  # type: ignore[attr-defined]
            for name in {each.group for each in actions if isinstance(each, Launch)}
        }
    )


def groups_of(drawn: list[tuple[int, float, int, int]]) -> list[GroupRules]:
    made = []
    for number, (shape, share, _, _) in enumerate(drawn):
        made.append(group(f"g{number}", shapes=[SHAPES[shape].name], maximum=500, share=share))
    return made


drawn_groups = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0, 0.5]), st.integers(0, 60), st.integers(0, 6)),
    min_size=2,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(drawn_groups, st.integers(1, 80))
def test_launches_are_fair_and_never_above_the_quota(drawn: list[tuple[int, float, int, int]], quota: int) -> None:
    """Each group has one shape, jobs of one core, and busy workers; all of one cloud, whose quota holds cores."""
    rules = site(*groups_of(drawn), quota=Quota(cores=quota))
    workers, nodes, demand = [], [], []
    for number, (shape, _, jobs, held) in enumerate(drawn):
        for which in range(held):
            name = f"w{number}-{which}"
            workers.append(worker(name, group_name=f"g{number}", shape=SHAPES[shape], since=NOW - 9))
            nodes.append(node(name, running=1, total=SHAPES[shape].resources, free=Resources()))
        if jobs:
            demand.append(row(jobs, Resources(1, 0), [(f"g{number}", SHAPES[shape].name)], label=f"r{number}"))
    world = World(rules=rules, workers=workers, nodes=nodes, demand=demand, shapes=SHAPES)
    plan = world.plan()
    assert world.plan() == plan
    launches = [action for action in plan.actions if isinstance(action, Launch)]
    assert not any(isinstance(action, Drain) for action in plan.actions), "they have just joined"
    new = sizes(launches)
    size = [SHAPES[shape].resources.cores for shape, *_ in drawn]
    had = [held * size[number] for number, (_, _, _, held) in enumerate(drawn)]
    has = [had[number] + new[f"g{number}"] for number in range(len(drawn))]
    assert sum(has) <= max(quota, sum(had)), "never above the quota"
    wants = [had[n] + -(-jobs // size[n]) * size[n] for n, (_, _, jobs, _) in enumerate(drawn)]
    assert all(mine <= most for mine, most in zip(has, wants, strict=True)), "no machine without a job"
    free = quota - sum(has)
    claims = [claim(f"g{n}", wants[n], drawn[n][1]) for n in range(len(drawn))]
    parts = fair_parts(quota, claims)
    # Room may be kept for the one machine that each group gets at least: a part is short by both accounts.
    first = sorted(range(len(drawn)), key=lambda n: (not had[n], -drawn[n][1]))
    kept = fair_parts(quota, [claim(f"g{n}", wants[n], drawn[n][1], size[n] if drawn[n][2] else 0) for n in first])
    for n in range(len(drawn)):
        least = min(parts[GroupName(f"g{n}")], kept[GroupName(f"g{n}")])
        short = has[n] < wants[n] and has[n] + size[n] <= least + ALMOST
        for other in range(len(drawn)):
            gained = has[other] - had[other]
            above = has[other] - size[other] >= max(parts[GroupName(f"g{other}")], size[other])
            assert not (short and gained and above), f"g{other} got more than its part while g{n} has less"
        if short:
            assert free < size[n], "room is left, and a group below its part waits"


def test_a_share_counts_for_as_much_as_it_says() -> None:
    rules = site(group("a", share=3.0), group("b"), quota=Quota(cores=16))
    demand = [row(50, runs_on=[("a", "small")]), row(50, runs_on=[("b", "small")], label="b")]
    world = World(rules=rules, demand=demand)
    assert brief(world.actions()) == ["launch 6 a private small demand", "launch 2 b private small demand"]
    five = world.but(rules=site(group("a", share=3.0), group("b"), quota=Quota(cores=10)))  # parts of 3.75 and 1.25
    assert brief(five.actions()) == ["launch 4 a private small demand", "launch 1 b private small demand"]
    assert "fair part" in world.plan().why_group[GroupName("b")].text or world.actions()


def test_the_unit_that_is_shortest_is_shared() -> None:
    rules = site(group("a"), group("b", shapes=["large"]), quota=Quota(cores=1000, machines=4))
    demand = [row(50, runs_on=[("a", "small")]), row(80, runs_on=[("b", "large")], label="b")]
    assert brief(World(rules=rules, demand=demand).actions()) == [
        "launch 2 a private small demand",
        "launch 2 b private large demand",
    ]


def contended(*, idle_for: float = 9000.0, idle: float = 100.0, running: int = 0, since: float = NOW - 1000) -> World:
    """Group a has the whole quota of 8 cores; b waits."""
    policy = QueuePolicy(idle_for=idle_for)
    rules = site(group("a", policy=policy), group("b", policy=policy), quota=Quota(cores=8))
    workers = [worker(f"w{number}", group_name="a", since=since) for number in range(4)]
    nodes = [node(entry.id, running=running, idle_since=NOW - idle) for entry in workers]
    return World(rules=rules, workers=workers, nodes=nodes, demand=[row(4, runs_on=[("b", "small")])])


def test_idle_workers_are_given_up_early_as_many_as_are_lacking() -> None:
    plan = contended().plan()
    assert brief(plan.actions) == ["drain w0 yielded", "drain w1 yielded"]
    assert "group b waits with less than its part" in plan.actions[0].reason.text
    young = contended(idle=59.0, since=NOW - 500)
    assert brief(young.actions()) == []
    assert young.plan().look_again == NOW + 1
    assert len(contended(idle=59.0, idle_for=50.0).actions()) == 4, "their own time is over"


def test_idle_workers_that_jobs_of_their_own_need_are_not_spare() -> None:
    world = contended()
    own = row(8, runs_on=[("a", "small")], label="own")
    assert brief(world.but(demand=[*world.demand, own]).actions()) == ["drain w0 yielded", "drain w1 yielded"]
    just_joined = contended(since=NOW - 100)
    assert brief(just_joined.but(demand=[*world.demand, own]).actions()) == [], "left to their work for a while"


def test_busy_workers_above_the_part_are_drained_and_none_below_it() -> None:
    world = contended(running=2)
    endless = row(50, runs_on=[("a", "small")], label="own")
    assert brief(world.but(demand=[*world.demand, endless]).actions()) == ["drain w0 yielded", "drain w1 yielded"]
    few = row(1, runs_on=[("b", "small")])
    assert brief(world.but(demand=[few, endless]).actions()) == ["drain w0 yielded"]
    assert brief(contended(running=2, since=NOW - 599).but(demand=[few, endless]).actions()) == []


def test_a_drain_for_the_others_is_not_taken_back_and_not_repeated() -> None:
    world = contended(running=2)
    leaving = [
        worker(f"w{number}", S.DRAINING, group_name="a", since=NOW - 5, cause=Cause.YIELDED) for number in range(2)
    ]
    endless = row(50, runs_on=[("a", "small")], label="own")
    assert brief(world.but(workers=[*leaving, *world.workers[2:]], demand=[*world.demand, endless]).actions()) == []


def test_nobody_gives_up_its_minimum() -> None:
    world = contended(running=2)
    rules = site(group("a", minimum=3), group("b"), quota=Quota(cores=8))
    assert brief(world.but(rules=rules).actions()) == ["drain w0 yielded"]


def test_the_own_group_gives_up_idle_machines_that_are_in_its_way() -> None:
    rules = site(group("a", shapes=["small", "large"], policy=QueuePolicy(idle_for=9000.0)), quota=Quota(cores=8))
    world = contended().but(rules=rules, demand=[row(1, Resources(8, 1024), [("a", "large")])])
    assert len(world.actions()) == 4
    assert {action.reason.cause for action in world.actions()} == {Cause.YIELDED}

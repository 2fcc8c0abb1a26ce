"""Workers whose group has another queue now than the one that they were made for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridtide.control import operating
from gridtide.errors import SiteFileError
from gridtide.model.demand import Demand, Node, Nodes, NodeState
from gridtide.model.ids import CloudName, QueueName
from gridtide.model.readings import Missing, Reading
from gridtide.model.reasons import Cause
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import QueueView
from gridtide.model.workers import Worker, WorkerState
from tests.unit.planning.worlds import GRID, NOW, World, brief, fresh, group, node, row, site, stale, worker

S = WorkerState
SECOND = QueueName("second")
NO_JOBS: Reading[Demand] = fresh(())
RULES = replace(site(), queues=(QueueName("pool"), SECOND))
"""Group ``grid`` has queue ``pool``."""


def moved(state: WorkerState = S.JOINED, **more: object) -> Worker:
    return replace(worker(state=state, **more), queue=SECOND)  # type: ignore[arg-type]


def world(subject: Worker, *nodes: Node, reading: Reading[Nodes] | None = None) -> World:
    """``nodes`` are those of the second queue; the group's lists none."""
    second = QueueView(NO_JOBS, reading or fresh(tuple(nodes)))
    return World(rules=RULES, workers=[subject], queues={"second": second})


@pytest.mark.parametrize(
    ("recorded", "queues", "groups", "queue", "belongs"),
    [
        ("pool", ("pool", "second"), True, "pool", True),
        ("second", ("pool", "second"), True, "second", False),
        ("second", ("pool", "second"), False, "second", False),
        (None, ("pool",), True, "pool", True),
        ("renamed", ("pool",), True, "pool", True),
        ("renamed", ("pool",), False, None, False),
        (None, ("pool",), False, None, False),
    ],
)
def test_whose_jobs_a_worker_runs(
    recorded: str | None, queues: tuple[str, ...], groups: bool, queue: str | None, belongs: bool
) -> None:
    rules = replace(site(), queues=tuple(map(QueueName, queues)))
    if not groups:
        rules = replace(rules, groups={})
    subject = replace(worker(), queue=None if recorded is None else QueueName(recorded))
    assert rules.queue_of(subject) == queue
    assert rules.group_of(subject) == (rules.groups[GRID] if belongs else None)


def test_it_is_drained_and_its_job_runs_to_the_end() -> None:
    busy = world(moved(), node(running=1))
    assert brief(busy.actions()) == ["drain w1 withdrawn"]
    assert "works for queue second, and group grid for pool now" in busy.why().text
    draining = moved(S.DRAINING, cause=Cause.WITHDRAWN)
    assert world(draining, node(state=NodeState.DRAINING, running=1)).actions() == ()
    assert brief(world(draining, node(state=NodeState.DRAINED)).actions()) == [
        "w1 draining->drained drained-empty",
        "terminate w1 drained drained-empty",
    ]


def test_it_is_withdrawn_before_it_has_joined() -> None:
    assert brief(world(moved(S.INTENDED)).actions()) == ["w1 intended->gone withdrawn"]
    assert brief(world(moved(S.BOOTING)).actions()) == ["terminate w1 booting withdrawn"]


def test_it_is_no_room_for_the_jobs_of_the_new_queue_but_counts_against_the_maximum() -> None:
    here = world(moved(), node()).but(demand=[row(1)])
    assert [line for line in brief(here.actions()) if line.startswith("launch")] != []
    full = here.but(rules=replace(RULES, groups={GRID: group(maximum=1)}))
    assert brief(full.actions()) == ["drain w1 withdrawn"]


def test_load_does_not_take_its_drain_back() -> None:
    draining = moved(S.DRAINING, cause=Cause.SURPLUS)
    jobs = world(draining, node(state=NodeState.DRAINED)).but(demand=[row(1)])
    assert not any(line.startswith("undrain") for line in brief(jobs.actions()))


@pytest.mark.parametrize("state", [S.JOINED, S.DRAINING, S.DRAINED])
def test_the_groups_queue_says_nothing_of_it(state: WorkerState) -> None:
    """That its group's queue does not list it is no reason to end it while its own is silent."""
    for known in ((node(running=1),), ()):
        acts = brief(world(moved(state, since=NOW - 1000), reading=stale(known, "no answer")).actions())
        assert not any("terminate" in line or "gone" in line for line in acts)
    unread = world(moved(state), reading=Missing("not read yet", NOW))
    assert unread.actions() == ()
    assert unread.why().cause is Cause.NO_EVIDENCE


def told(rules: SiteRules, subject: Worker) -> list[str]:
    return [event.text for event in operating.lost_events(rules, [subject], now=NOW)]


def test_what_is_said_of_workers_that_a_site_file_loses() -> None:
    mine, other = replace(worker(), queue=QueueName("pool")), moved()
    unnamed = "1 worker(s) of {} still exist, which the site file does not name"
    assert told(RULES, mine) == told(RULES, worker()) == []
    assert told(RULES, other) == [
        "1 worker(s) of groups.grid still exist, and work for queue second, which is the group's no more: "
        "they are drained and returned"
    ]
    gone = replace(RULES, groups={})
    assert told(gone, mine) == [f"{unnamed.format('groups.grid')}: they are drained and returned"]
    assert told(gone, worker()) == [f"{unnamed.format('groups.grid')}, nor their queue: nobody can drain them"]
    renamed = replace(RULES, queues=(QueueName("pool"),))
    assert told(renamed, other) == [f"{unnamed.format('queues.second')}: their group's queue, pool, is taken for it"]
    cloudless = replace(RULES, clouds={CloudName("burst"): RULES.clouds[CloudName("burst")]})
    assert told(cloudless, other) == [f"{unnamed.format('clouds.private')}: nobody can end their machines"]


def test_a_site_file_that_loses_workers_is_refused_unless_the_one_before_did() -> None:
    other = moved()
    before = replace(RULES, groups={GRID: group(queue="second")})
    with pytest.raises(SiteFileError, match="work for queue second") as refused:
        operating.check_nothing_lost(before, RULES, [other])
    assert refused.value.where == "groups.grid"
    operating.check_nothing_lost(RULES, RULES, [other])
    operating.check_nothing_lost(before, RULES, [])

"""What waits and runs, by group, and what will never run: in status, groups and metrics."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from gridtide.cli import tables
from gridtide.cli import views as cli_views
from gridtide.control.api import Cycle
from gridtide.model.demand import DemandRow
from gridtide.model.ids import GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.readings import Fresh, Missing
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.model.snapshot import QueueView
from gridtide.model.workers import WorkerState
from gridtide.service import views
from gridtide.service.glance import glance
from gridtide.service.loads import GroupLoad, loads, stuck, stuck_counts
from tests.unit.service.site import GROUP, NOW, SHAPE, cycle, rules, worker

PILOT = QueueName("pilot")
NO_SHAPE = Reason(Cause.NO_SHAPE_FITS, "no shape of any group can run 64 cores: it needs 64 cores, the largest has 2")
NOT_TAKEN = Reason(Cause.NOT_TAKEN, "idle workers of group grid had room for them")


def row(label: str, count: int, *offers: tuple[str, str]) -> DemandRow:
    keys = frozenset((GroupName(group), ShapeName(shape)) for group, shape in offers)
    return DemandRow(Resources(1), count, NOW - 30, keys, label)


def seen(*rows: DemandRow) -> Cycle:
    """The usual cycle with these jobs waiting, the first kinds of which nothing runs."""
    usual = cycle({WorkerId("grid-1"): worker("grid-1", WorkerState.JOINED)})
    queue = QueueView(Fresh(rows, NOW - 2, NOW - 1), usual.snapshot.queues[PILOT].nodes)
    why: dict[tuple[str, str], Reason] = {(PILOT, "64 cores"): NO_SHAPE, (PILOT, "kernel"): NOT_TAKEN}
    plan = replace(usual.plan, why_demand={**usual.plan.why_demand, **why})
    return replace(usual, snapshot=replace(usual.snapshot, queues={PILOT: queue}), plan=plan)


ALL = seen(
    row("64 cores", 3),
    row("kernel", 4, (GROUP, SHAPE.name), (GROUP, "other")),
    row("1 core", 2, (GROUP, SHAPE.name), ("elsewhere", "x")),
    row("none", 0),
)


def test_a_group_has_the_jobs_that_it_could_run_each_once() -> None:
    assert loads(ALL.snapshot, rules()) == {GROUP: GroupLoad(waiting=6, running=1)}


def test_what_was_never_read_is_not_known() -> None:
    blind = replace(ALL.snapshot, queues={PILOT: QueueView(Missing("refused", NOW), Missing("refused", NOW))})
    assert loads(blind, rules()) == {GROUP: GroupLoad(None, None)}
    assert loads(replace(ALL.snapshot, queues={}), rules()) == {GROUP: GroupLoad(None, None)}
    assert stuck_counts(replace(ALL, snapshot=blind)) == {}


def test_jobs_on_nodes_of_others_are_not_the_groups() -> None:
    nobody = replace(ALL.snapshot, workers={})
    assert loads(nobody, rules())[GROUP].running == 0


def test_stuck_are_the_kinds_that_nothing_of_ours_will_run() -> None:
    assert [(queue, entry.label, why) for queue, entry, why in stuck(ALL)] == [
        (PILOT, "64 cores", NO_SHAPE),
        (PILOT, "kernel", NOT_TAKEN),
    ]
    assert stuck_counts(ALL) == {(PILOT, Cause.NO_SHAPE_FITS): 3, (PILOT, Cause.NOT_TAKEN): 4}


def test_status_tells_of_both() -> None:
    shown = views.status("torino", rules(), {}, {}, glance(ALL, rules()), None, NOW)
    groups = shown["groups"]
    assert isinstance(groups, list)
    group = groups[0]
    assert isinstance(group, dict)
    assert (group["waiting"], group["running"], group["share"]) == (6, 1, 1.0)
    assert shown["stuck"] == [
        {
            "queue": "pilot",
            "label": "64 cores",
            "count": 3,
            "reason": {"cause": "no-shape-fits", "text": NO_SHAPE.text},
        },
        {"queue": "pilot", "label": "kernel", "count": 4, "reason": {"cause": "not-taken", "text": NOT_TAKEN.text}},
    ]


def test_people_read_one_line_for_each_kind() -> None:
    view = cli_views.status(views.status("torino", rules(), {}, {}, glance(ALL, rules()), None, NOW))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables.status(view, NOW))
    lines = [line for line in capture.get().splitlines() if "64 cores" in line or "kernel" in line]
    assert len(lines) == 2
    assert lines[0].split()[:2] == ["pilot", "3"]
    assert "the largest has 2" in lines[0]

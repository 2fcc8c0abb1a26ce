"""What clouds have charged, as JSON, as metrics and as people read it."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from gridtide.cli import tables
from gridtide.cli import views as cli_views
from gridtide.control.api import Cycle
from gridtide.model.actions import Plan
from gridtide.model.costs import HOUR, Budget, day_of
from gridtide.model.demand import NodeState
from gridtide.model.rules import SiteRules
from gridtide.model.workers import WorkerState
from gridtide.service import views
from gridtide.service.glance import glance
from gridtide.service.metrics import Metrics, SiteFigures
from tests.unit.planning.worlds import BURST, CLOUD, NOW, SMALL, World, node, site, worker


def priced(name: str, state: WorkerState, age: float) -> World:
    mine = worker(name, state, since=NOW - age, launched=NOW - age, shape=replace(SMALL, price=1.0))
    rules = site()
    budget = replace(rules.clouds[CLOUD], budget=Budget(10.0, HOUR))
    rules = replace(rules, clouds={**rules.clouds, CLOUD: budget})
    return World(rules=rules, workers=[mine], nodes=[node(name, NodeState.DRAINING, running=1)])


def seen(world: World, *, gone: float = 2.5) -> tuple[SiteRules, Cycle]:
    snapshot = replace(world.snapshot(), ended_costs={CLOUD: {day_of(NOW): gone}})
    return world.rules, Cycle(1, snapshot, Plan(), 0.1)


LATE = priced("w1", WorkerState.DRAINING, 2 * HOUR)


def test_status_has_a_line_for_each_cloud_that_costs_anything() -> None:
    rules, cycle = seen(LATE)
    shown = views.status("torino", rules, {}, {}, glance(cycle, rules), None, NOW)["spending"]
    assert shown == [
        {"cloud": "private", "per_day": 10.0, "spent": 4.5, "kept": shown[0]["kept"], "late": 1}  # type: ignore[index, call-overload]
    ]
    free = replace(rules, clouds={name: replace(each, budget=None) for name, each in rules.clouds.items()})
    without = views.status("torino", free, {}, {}, glance(seen(LATE, gone=0.25)[1], free), None, NOW)["spending"]
    assert without == [{"cloud": "private", "per_day": None, "spent": 2.25, "kept": None, "late": 0}]
    assert views.status("torino", rules, {}, {}, None, None, NOW)["spending"] == []


def test_people_read_it_as_a_table() -> None:
    rules, cycle = seen(LATE)
    view = cli_views.status(views.status("torino", rules, {}, {}, glance(cycle, rules), None, NOW))
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables.status(view, NOW))
    (line,) = [line for line in capture.get().splitlines() if line.startswith("private")]
    assert line.split()[:4] == ["private", "4.50", "0.00", "10.00"]
    assert line.strip().endswith("1 worker with jobs longer than longest_job")


def test_metrics() -> None:
    rules, cycle = seen(LATE)
    text = Metrics().render(SiteFigures(NOW, rules, (), {}, cycle, None, 0)).decode()
    assert 'gridtide_budget{cloud="private"} 10.0' in text
    assert f'gridtide_spent_today{{cloud="{BURST}"}} 0.0' in text
    assert 'gridtide_spent_today{cloud="private"} 4.5' in text
    assert 'gridtide_kept_back_today{cloud="private"}' in text
    assert 'gridtide_late_workers{cloud="private"} 1.0' in text
    assert f'gridtide_budget{{cloud="{BURST}"}}' not in text

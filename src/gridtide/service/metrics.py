"""Metrics for Prometheus. ``docs/reference/metrics.md`` lists them; a test keeps the two together.

Labels are groups, queues, clouds, images, states and routes: things a site file or this package fixes. Never a worker,
a job, a user, an address or a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gridtide.control.api import Cycle
from gridtide.model.boots import Boot
from gridtide.model.ids import GroupName
from gridtide.model.rules import SiteRules, Wishes
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import JobState
from gridtide.planning.spending import spending_of
from gridtide.service import views
from gridtide.service.loads import stuck_counts

BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""Seconds. Few, because each costs a time series per route."""

BOOT_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0, 1800.0)
"""Seconds. From a machine that was continued from a saved state to the slowest cloud that anybody waits for."""


Labels = TypeVar("Labels", tuple[()], tuple[str], tuple[str, str])


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """All that a scrape shows of the site, read at one moment."""

    now: float
    rules: SiteRules
    workers: tuple[Worker, ...]
    wishes: Mapping[GroupName, Wishes]
    cycle: Cycle | None
    jobs: Mapping[JobState, int] | None
    token_failures: int


class Metrics:
    """Counts requests as they come, and makes the site's gauges when it is scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = CounterMetric(
            "gridtide_http_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "gridtide_http_request_seconds",
            "Time to the first byte of the answer, long polls included.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._boots = Histogram(
            "gridtide_boot_seconds",
            "From the launch call to the join.",
            ["cloud", "image"],
            buckets=BOOT_BUCKETS,
            registry=self.registry,
        )
        self._phases = CounterMetric(
            "gridtide_boot_phase_seconds", "The same by phase.", ["cloud", "image", "phase"], registry=self.registry
        )
        self._children: dict[tuple[str, int], tuple[CounterMetric, Histogram]] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one request. ``route`` is the template, never the path."""
        children = self._children.get((route, status))
        if children is None:
            children = (self._requests.labels(route, str(status)), self._seconds.labels(route))
            self._children[(route, status)] = children
        children[0].inc()
        children[1].observe(seconds)

    def observe_boot(self, boot: Boot) -> None:
        """Count one worker that joined."""
        cloud, image = str(boot.key.cloud), boot.key.image or ""
        self._boots.labels(cloud, image).observe(boot.seconds)
        for phase, seconds in boot.phases.items():
            self._phases.labels(cloud, image, phase.value).inc(seconds)

    def render(self, figures: SiteFigures) -> bytes:
        """The text that Prometheus reads."""
        site = CollectorRegistry()
        site.register(_Once(tuple(site_metrics(figures))))
        return bytes(generate_latest(self.registry) + generate_latest(site))


class _Once:
    """Hands figures that were read already to a registry."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def site_metrics(figures: SiteFigures) -> Iterator[Metric]:
    """The site's gauges. What is not known is left out, so that a rule can tell "none" from "not known"."""
    states = Counter((str(worker.group), str(worker.state)) for worker in figures.workers)
    groups = [str(name) for name in figures.rules.groups]
    counts = {(group, str(state)): float(states[(group, str(state))]) for group in groups for state in WorkerState}
    counts = {key: count for key, count in counts.items() if key[1] != WorkerState.GONE}
    yield _gauge("gridtide_workers", "Workers that are not gone.", ("group", "state"), counts)
    limits = {
        (str(name), which): float(value)
        for name, rules in figures.rules.groups.items()
        for which, value in views.limits(rules, figures.wishes.get(name, Wishes())).items()
        if value is not None
    }
    yield _gauge("gridtide_group_limit", "Limits in force.", ("group", "limit"), limits)
    if figures.jobs is not None:
        jobs = {(str(state),): float(figures.jobs.get(state, 0)) for state in JobState}
        yield _gauge("gridtide_jobs", "Jobs of the pilot queue.", ("state",), jobs)
    failures = CounterMetricFamily("gridtide_token_failures", "Bad tokens refused since the start.")
    failures.add_metric((), figures.token_failures)
    yield failures
    if figures.cycle is not None:
        yield from _cycle_metrics(figures.cycle, figures.now)
        yield from _money_metrics(figures.cycle, figures.rules)


def _money_metrics(cycle: Cycle, rules: SiteRules) -> Iterator[Metric]:
    found = {(str(name),): each for name, each in spending_of(cycle.snapshot, rules).items()}
    budgets = {name: each.per_day for name, each in found.items() if each.per_day is not None}
    yield _gauge("gridtide_budget", "Budget of a day (UTC).", ("cloud",), budgets)
    spent = {name: each.spent for name, each in found.items()}
    yield _gauge("gridtide_spent_today", "What machines have cost today (UTC).", ("cloud",), spent)
    kept = {name: each.kept for name, each in found.items() if each.kept is not None}
    yield _gauge("gridtide_kept_back_today", "What machines may still cost today.", ("cloud",), kept)
    late = {name: float(each.late) for name, each in found.items() if each.per_day is not None}
    yield _gauge("gridtide_late_workers", "Drained workers whose jobs outlast longest_job.", ("cloud",), late)


def _cycle_metrics(cycle: Cycle, now: float) -> Iterator[Metric]:
    number = CounterMetricFamily("gridtide_cycles", "Cycles of the controller.")
    number.add_metric((), cycle.number)
    yield number
    yield _gauge("gridtide_cycle_seconds", "Duration of the last cycle.", (), {(): cycle.seconds})
    yield _gauge("gridtide_cycle_age_seconds", "Age of the last cycle.", (), {(): max(0.0, now - cycle.snapshot.now)})
    planned = Counter(type(action).__name__ for action in cycle.plan.actions)
    names = ("Launch", "Advance", "Drain", "Undrain", "Terminate", "TerminateStray")
    actions = {(name,): float(planned[name]) for name in names}
    yield _gauge("gridtide_planned_actions", "Actions in the last plan.", ("action",), actions)
    sources = views.sources(cycle.snapshot, now)
    good = {(source.source,): float(source.quality == "fresh") for source in sources}
    yield _gauge("gridtide_source_fresh", "1 when the source's last reading is evidence.", ("source",), good)
    ages = {(source.source,): source.age for source in sources if source.age is not None}
    yield _gauge("gridtide_source_age_seconds", "Age of the last answer that was believed.", ("source",), ages)
    waiting = {
        (str(name),): count
        for name, view in cycle.snapshot.queues.items()
        if (count := views.waiting(view)) is not None
    }
    yield _gauge("gridtide_waiting_jobs", "Waiting jobs as last believed.", ("queue",), waiting)
    stuck = {(name, str(cause)): float(count) for (name, cause), count in stuck_counts(cycle).items()}
    yield _gauge("gridtide_stuck_jobs", "Waiting jobs that none of our machines will run.", ("queue", "cause"), stuck)
    machines = {
        (str(name), whose): float(count)
        for name, cloud in cycle.snapshot.clouds.items()
        for whose, count in views.machine_counts(cloud).items()
    }
    yield _gauge("gridtide_machines", "Machines as last believed.", ("cloud", "whose"), machines)

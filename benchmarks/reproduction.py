"""The source documents' own figures, computed anew, and their runs on our controller: docs/explanation/sources.md.

``python -m benchmarks.reproduction`` writes the page's tables; a test fails when they differ from what is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log1p, sqrt
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from gridtide.model.ids import CloudName, GroupName
from gridtide.model.rules import LoadPolicy, Policy, QueuePolicy, SchedulePolicy, Window
from gridtide.sim.cloud import BootTime
from gridtide.sim.run import Run, simulate
from gridtide.sim.setting import Setting, fitted, standard_setting
from gridtide.sim.trace import Reading, TraceJob, make_trace
from gridtide.site.policies import ElastiqPolicySettings

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/explanation/sources.md"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

# --- pull and push


@dataclass(frozen=True, slots=True)
class Printed:
    """A row of the document's table 4.5."""

    days: float
    push: str
    pull: str
    gain: int


RAMP_UP: Final = (0.28250, 0.00258)
"""p0 and p1 of CERN: workers a second, and how that falls."""
TABLE: Final = (
    Printed(0.5, "0:19", "0:13", 28),
    Printed(1.0, "0:31", "0:23", 26),
    Printed(2.0, "0:52", "0:40", 25),
    Printed(5.0, "1:50", "1:26", 21),
    Printed(10.0, "3:17", "2:42", 18),
)


def push_time(serial: float, ramp_up: tuple[float, float] = RAMP_UP) -> float:
    """Seconds to the result with the best number of jobs, which must be chosen beforehand (4.8)."""
    p0, p1 = ramp_up
    return (2.0 * sqrt(p0 * serial) + p1 * serial) / p0


def pull_time(serial: float) -> float:
    """Seconds to the result when every worker takes packets as long as there are some (4.5, inverted by halving)."""
    p0, p1 = RAMP_UP
    low, high = 0.0, push_time(serial)
    for _ in range(200):
        middle = (low + high) / 2.0
        done = p0 / (p1 * p1) * (p1 * middle - log1p(p1 * middle))
        low, high = (middle, high) if done < serial else (low, middle)
    return high


def clock(seconds: float) -> str:
    """``h:mm``, full minutes, as the document writes it."""
    return f"{int(seconds // HOUR)}:{int(seconds % HOUR // MINUTE):02}"


def gain(serial: float) -> float:
    """Part of the time that pulling saves."""
    return 1.0 - pull_time(serial) / push_time(serial)


def differences() -> list[str]:
    """Entries of the printed table that the formulas do not give."""
    found: list[str] = []
    for row in TABLE:
        serial = row.days * DAY
        for name, printed, computed in (
            ("push", row.push, clock(push_time(serial))),
            ("pull", row.pull, clock(pull_time(serial))),
            ("gain", f"{row.gain} %", f"{100 * gain(serial):.0f} %"),
        ):
            if printed != computed:
                found.append(f"{row.days:g} days, {name}: {printed} is printed, {computed} computed")
    return found


# --- runs

CREATION: Final = 234.2
"""Seconds: the mean creation of the Heat thesis, taken for a boot."""
OVERHEAD: Final = 20.0
"""Seconds between two jobs of a worker, by the thesis's first test."""
STEP_DOWN: Final = 19 * MINUTE / 6
"""Seconds for one step in the thesis's own run: six steps down took 19 minutes, where its template says 60 s."""
HEAT: Final = LoadPolicy()
AS_RUN: Final = replace(HEAT, cooldown=STEP_DOWN)
OURS: Final = QueuePolicy()
CLOUD, GROUP = CloudName("cloud"), GroupName("grid")


def pool(
    policy: Policy, *, maximum: int = 7, minimum: int = 1, cores: int = 1, boot: float = CREATION, sigma: float = 0.0
) -> Setting:
    """The thesis's pool: one-core workers unless told otherwise, from one to seven; looked at every 5 s."""
    base = standard_setting("reproduction", cores=(cores,))
    group = replace(base.rules.groups[GROUP], policy=policy, minimum=minimum, maximum=maximum)
    cloud = replace(base.clouds[CLOUD], boot=BootTime(boot, sigma))
    return replace(base, rules=replace(base.rules, groups={GROUP: group}), clouds={CLOUD: cloud}, step=5.0)


def replay(jobs: Iterable[TraceJob], setting: Setting, *, epoch: float = 0.0) -> Run:
    """On the production controller, on virtual time. RuntimeError when a rule was broken."""
    trace = replace(make_trace("reproduction", jobs, Reading()), epoch=epoch)
    run = simulate(fitted(trace, setting), setting)
    if run.violations or run.killed or run.lost:
        raise RuntimeError(f"a rule was broken: {run.violations}")
    return run


@dataclass(frozen=True, slots=True)
class Scaling:
    """A run of jobs of ten minutes on a pool that starts with one worker."""

    minutes: float
    """From the submission to the end of the last job."""
    factor: float
    """Work over time; the number of workers is its limit."""
    down: float
    """Minutes from then until there is one worker."""
    killed: int


@cache
def scaling(count: int, policy: Policy) -> Scaling:
    """``count`` jobs are submitted at once, when the first worker has been there for a while."""
    settled = 2 * CREATION
    first = TraceJob(0, 0.0, 1.0)
    jobs = [TraceJob(number, settled, 600.0 + OVERHEAD) for number in range(1, count + 1)]
    run = replay([first, *jobs], pool(policy))
    end = max(run.jobs.ended)
    last = sorted(machine.ended for machine in run.machines)[-2]
    elapsed = end - settled
    return Scaling(elapsed / MINUTE, 600.0 * count / elapsed, max(last - end, 0.0) / MINUTE, run.killed)


@dataclass(frozen=True, slots=True)
class Manual:
    """From one worker to seven by order, then to a new minimum of three."""

    at_once: int
    """Launches in the moment of the order."""
    kept: int
    """Workers in the end."""
    minutes: float
    """From the order to the last one that goes."""


@cache
def manual() -> Manual:
    """The order is a window: seven are wanted until they are there, with three as minimum from then on."""
    begin = 1_704_067_200.0  # midnight, UTC
    windows = (
        Window("0 1 * * *", 22 * HOUR, minimum=3),
        Window("0 1 * * *", 10 * MINUTE, desired=7),
    )
    jobs = [TraceJob(1, 0.0, 1.0), TraceJob(2, 4 * HOUR, 1.0)]
    run = replay(jobs, pool(SchedulePolicy(windows, "UTC", HEAT)), epoch=begin)
    ordered = [machine for machine in run.machines if abs(machine.made - HOUR) < MINUTE]
    gone = [machine.ended for machine in run.machines if machine.ended < 4 * HOUR]
    kept = sum(machine.made < 4 * HOUR < machine.ended for machine in run.machines)
    return Manual(len(ordered), kept, (max(gone) - HOUR) / MINUTE)


@dataclass(frozen=True, slots=True)
class LongJob:
    """A job of ten hours, while six short ones come every hour."""

    starts: int
    hours: float
    """From its start to its end."""
    ended: int
    """Workers that went meanwhile."""


@cache
def long_job(policy: Policy) -> LongJob:
    """The thesis's test, with its threshold of 30 % for going down."""
    settled = 2 * CREATION
    jobs = [TraceJob(0, 0.0, 1.0), TraceJob(1, settled, 10 * HOUR)]
    jobs += [
        TraceJob(9 * hour + number, hour * HOUR + settled + 1.0, 20 * MINUTE)
        for hour in range(10)
        for number in range(6)
    ]
    run = replay(jobs, pool(policy))
    ran = max(zip(run.jobs.ended, run.jobs.started, strict=True), key=lambda pair: pair[0] - pair[1])
    return LongJob(1 + run.lost, (ran[0] - ran[1]) / HOUR, sum(ran[1] < each.ended < ran[0] for each in run.machines))


@dataclass(frozen=True, slots=True)
class Fleet:
    """Ten machines of four cores at once, for forty jobs."""

    asked: float
    """Seconds from the submission to the request."""
    joined: float
    """Mean seconds from the request to the join."""
    last: float
    """Seconds from the submission to the last join."""
    machines: int


def fleet(policy: Policy, boot: float, deviation: float) -> Fleet:
    """The boot is what was measured: it is put in, not found out."""
    jobs = [TraceJob(number, 0.0, 2 * HOUR) for number in range(40)]
    run = replay(jobs, pool(policy, maximum=10, minimum=0, cores=4, boot=boot, sigma=deviation / boot))
    made = [machine.made for machine in run.machines]
    joined = [machine.joined for machine in run.machines if machine.joined is not None]
    mean = sum(end - begin for end, begin in zip(joined, made, strict=True)) / len(made)
    return Fleet(max(made), mean, max(joined), len(made))


ELASTIQ: Final = ElastiqPolicySettings(type="elastiq").policy()
ELASTIQ_TEST: Final = ElastiqPolicySettings.model_validate({"type": "elastiq", "waiting_time": "10 s"}).policy()
"""As in the document's test: its wait was set to less than 10 s."""
CLOUDS: Final = (("OpenStack at CERN", "3:57", 237.0, 7.0), ("OpenNebula in Torino", "4:36", 276.0, 3.0))

# --- the page

POLICIES: Final[tuple[tuple[str, Policy], ...]] = (
    ("`load`, the template's 60 s", HEAT),
    ("`load`, a step every 190 s", AS_RUN),
    ("`queue`", OURS),
)


def pull_push_table() -> str:
    """Each entry as printed and as computed."""
    rows = [
        (
            f"{row.days:g}",
            row.push,
            clock(push_time(row.days * DAY)),
            row.pull,
            clock(pull_time(row.days * DAY)),
            f"{row.gain} %",
            f"{100 * gain(row.days * DAY):.1f} %",
        )
        for row in TABLE
    ]
    return _table(
        ("serial days", "push, printed", "computed", "pull, printed", "computed", "gain, printed", "computed"), rows
    )


def scaling_table() -> str:
    """72 and 720 jobs."""
    rows = [
        ("72 jobs: thesis", "120", "6.0", "19", ""),
        *(_scaling_row(f"72 jobs: {name}", scaling(72, policy)) for name, policy in POLICIES),
        ("720 jobs: thesis", "1093", "6.587", "", ""),
        *(_scaling_row(f"720 jobs: {name}", scaling(720, policy)) for name, policy in POLICIES),
    ]
    return _table(("", "minutes", "scaling factor (limit 7)", "minutes down to 1", "jobs ended by us"), rows)


def _scaling_row(name: str, done: Scaling) -> tuple[str, ...]:
    return (name, f"{done.minutes:.0f}", f"{done.factor:.3f}", f"{done.down:.0f}", str(done.killed))


def order_table() -> str:
    """Manual control and the long job."""
    given = manual()
    long = replace(HEAT, low=0.3)
    rows = [
        ("1 to 7 by order: machines launched at once", "6", str(given.at_once)),
        ("then down to the new minimum: workers kept", "3", str(given.kept)),
        (
            "job of 10 h beside short ones: starts, `load` with low = 0.3",
            "killed until the test was given up",
            _starts(long_job(long)),
        ),
        ("the same, `queue`", "", _starts(long_job(OURS))),
    ]
    return _table(("", "thesis", "here"), rows)


def _starts(ran: LongJob) -> str:
    return f"{ran.starts}, ran {ran.hours:.0f} h; {ran.ended} workers went meanwhile"


def fleet_table() -> str:
    """Ten machines at once."""
    rows = []
    for name, printed, boot, deviation in CLOUDS:
        for policy_name, policy in (
            ("`elastiq`, wait of 10 s", ELASTIQ_TEST),
            ("`elastiq`, its defaults", ELASTIQ),
            ("`queue`", OURS),
        ):
            found = fleet(policy, boot, deviation)
            words = (f"{found.machines}", f"{found.asked:.0f} s", _minutes(found.joined), _minutes(found.last))
            rows.append((f"{name}: {policy_name}", printed, *words))
    heads = (
        "",
        "request to join, printed",
        "machines",
        "until asked",
        "request to join, mean",
        "submission to last join",
    )
    return _table(heads, rows)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // MINUTE)}:{int(seconds % MINUTE):02}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: Final = {
    "pull and push": pull_push_table,
    "scaling": scaling_table,
    "orders": order_table,
    "ten machines": fleet_table,
}


def block(name: str) -> re.Pattern[str]:
    """Where the table of this name stands in the page."""
    return re.compile(rf"(<!-- {re.escape(name)} -->\n)(.*?)(\n?<!-- end -->)", re.DOTALL)


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Do the formulas give the printed table, and is our controller no worse than the documents' systems?"""
    told = "; ".join(differences())
    yield Figure("sources: entries of table 4.5 that differ", len(differences()), "of 15", "<=", 15, told)
    for count, printed in ((72, 6.0), (720, 6.587)):
        done = scaling(count, OURS)
        yield Figure(f"sources: scaling factor, {count} jobs, queue", done.factor, "", ">=", printed, "simulated")
    survived = long_job(replace(HEAT, low=0.3))
    yield Figure("sources: starts of the long job under load", survived.starts, "", "==", 1, f"{survived.ended} went")
    given = manual()
    yield Figure("sources: launched at once by order", given.at_once, "", "==", 6)
    yield Figure("sources: kept at the new minimum", given.kept, "", "==", 3)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for title, make in TABLES.items():
        made = make()
        text = block(title).sub(lambda found, made=made: found[1] + made + "\n<!-- end -->", text)  # type: ignore[misc]
    PAGE.write_text(text, encoding="utf-8")

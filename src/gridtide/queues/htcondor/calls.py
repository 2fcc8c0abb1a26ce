"""What the asking process can do. Runs there and nowhere else: it is the only module that loads ``htcondor2``.

Each call yields the items of its answer, or raises :class:`CallFailed`. Job and machine ads travel as tables of
ClassAd expressions by name.
"""

from __future__ import annotations

import functools
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import classad2
import htcondor2

from gridtide.queues.htcondor.fit import Verdict, judge_all

Expressions = dict[str, str]

# Idle, and of a universe that runs on execution points: not scheduler, grid, local (HTCondor manual, "JobUniverse").
# The schedd asks the groups too, which have no status unless they were grouped by it: that would cost more.
IDLE: Final = "(JobStatus ?: 1) == 1 && JobUniverse =!= 7 && JobUniverse =!= 9 && JobUniverse =!= 12"
# Running, transferring output, suspended: each holds its slot.
RUNNING: Final = "JobStatus == 2 || JobStatus == 6 || JobStatus == 7"
# What HTCondor adds to each group of jobs.
_ABOUT_GROUP: Final = frozenset({"id", "jobids", "jobcount", "mytype", "targettype", "servertime"})


class CallFailed(Exception):
    """``kind`` is one of :data:`gridtide.queues.htcondor.errors.KINDS`."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


def overview(names: Sequence[str] | None) -> Iterator[dict[str, object]]:
    """The collector's start and the schedds: all, or those of these names."""
    collector = _collector()
    own = _asked(
        lambda: collector.query(htcondor2.AdType.Collector, projection=["Name", "MonitorSelfTime", "MonitorSelfAge"])
    )
    found = _asked(
        lambda: collector.query(
            htcondor2.AdType.Schedd, projection=["Name", "MyAddress", "CondorVersion", "TotalIdleJobs"]
        )
    )
    yield {
        "started": max((_started(ad) for ad in own), default=None),
        "schedds": [
            {"name": ad["Name"], "address": ad["MyAddress"], "idle": int(ad.get("TotalIdleJobs", 0))}
            for ad in found
            if names is None or ad["Name"] in names
        ],
    }


def _started(collector: Any) -> int:
    """When it was started: alone of all daemons it does not say so directly, but how old it was at some time."""
    at, age = collector.get("MonitorSelfTime"), collector.get("MonitorSelfAge")
    if not isinstance(at, int) or not isinstance(age, int):
        raise CallFailed("incomplete", "the collector does not say since when it runs")
    return at - age


def idle(schedd: str, projection: Sequence[str], most: int) -> Iterator[dict[str, object]]:
    """Idle jobs that look alike in these attributes, counted by the schedd, with the first of each kind."""
    groups = _asked(
        lambda: _schedd(schedd).query(IDLE, [*projection], limit=most, opts=htcondor2.QueryOpt.GroupBy), schedd
    )
    for ad in groups:
        count = ad.get("JobCount")
        if not isinstance(count, int):
            raise CallFailed("incomplete", "the schedd does not count the jobs of a group")
        first = str(ad.get("JobIds", "")).split()[:1]
        yield {"job": _expressions(ad), "count": count, "cluster": int(first[0].partition(".")[0]) if first else None}


def clusters(schedd: str, numbers: Sequence[int], projection: Sequence[str]) -> Iterator[dict[str, object]]:
    """What all jobs of these clusters have in common."""
    wanted = ", ".join(str(int(number)) for number in numbers)
    found = _asked(
        lambda: _schedd(schedd).query(
            f"ProcId is undefined && member(ClusterId, {{{wanted}}})",
            ["ClusterId", "QDate", *projection],
            opts=htcondor2.QueryOpt.IncludeClusterAd,
        ),
        schedd,
    )
    for ad in found:
        job = _expressions(ad)
        for name in ("ClusterId", "QDate", "ProcId"):
            job.pop(name, None)
        yield {"cluster": int(ad["ClusterId"]), "since": int(ad.get("QDate", 0)), "job": job}


def running(schedd: str) -> Iterator[dict[str, object]]:
    """How many jobs the schedd has on each machine."""
    hosts: Counter[str] = Counter()
    for ad in _asked(lambda: _schedd(schedd).query(RUNNING, ["RemoteHost", "RemoteHosts"]), schedd):
        for host in str(ad.get("RemoteHosts") or ad.get("RemoteHost") or "").split(","):
            if host:
                hosts[host.strip().partition("@")[2] or host.strip()] += 1
    yield dict(hosts)


def slots(projection: Sequence[str]) -> Iterator[list[dict[str, object]]]:
    """All slots, in portions."""
    portion: list[dict[str, object]] = []
    for ad in _asked(lambda: _collector().query(htcondor2.AdType.Startd, projection=["MyType", *projection])):
        if ad.get("MyType") != "Machine":
            continue
        portion.append({name: _plain(ad, name) for name in ad if name != "MyType"})
        if len(portion) == 500:
            yield portion
            portion = []
    yield portion


def machines(names: Sequence[str]) -> Iterator[dict[str, object]]:
    """The whole ads of these slots."""
    wanted = ", ".join(f'"{name}"' for name in names)
    for ad in _asked(lambda: _collector().query(htcondor2.AdType.Startd, f"member(Name, {{{wanted}}})")):
        if ad.get("MyType") == "Machine":
            yield {"name": ad["Name"], "machine": _expressions(ad)}


def judge(jobs: Sequence[Expressions], machines: Sequence[Expressions]) -> Iterator[list[Verdict]]:
    """For each job, in order: what each machine, in order, makes of it."""
    yield from judge_all(jobs, machines)


def order(tokens: str, attribute: str, value: int, workers: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Set an attribute in the startds at these addresses, one after the other; an item for each."""
    htcondor2.param["SEC_TOKEN_DIRECTORY"] = tokens
    for worker, address in workers.items():
        wrong = None
        try:
            _order(address, attribute, value)
        except htcondor2.HTCondorException as error:
            wrong = str(error)
        yield {"worker": worker, "error": wrong}


def addresses(attribute: str, workers: Sequence[str], more: Sequence[str]) -> Iterator[dict[str, object]]:
    """The slots of the machines of these workers, with these attributes."""
    wanted = ", ".join(f'"{name}"' for name in workers)
    found = _asked(
        lambda: _collector().query(
            htcondor2.AdType.Startd, f"member({attribute}, {{{wanted}}})", ["MyType", attribute, "MyAddress", *more]
        )
    )
    for ad in found:
        if ad.get("MyType") == "Machine":
            yield {name: _plain(ad, name) for name in ad}


def forget(attribute: str, workers: Sequence[str]) -> Iterator[None]:
    """Take away all ads of these workers' machines."""
    wanted = ", ".join(f'"{name}"' for name in workers)
    for kind in ("Machine", "StartD", "DaemonMaster"):
        command = "INVALIDATE_MASTER_ADS" if kind == "DaemonMaster" else "INVALIDATE_STARTD_ADS"
        query = classad2.ClassAd({"MyType": "Query", "TargetType": kind})
        query["Requirements"] = classad2.ExprTree(f"member({attribute}, {{{wanted}}})")
        _asked(functools.partial(_collector().advertise, [query], command, True))
    yield None


def allowed(names: Sequence[str]) -> Iterator[dict[str, bool]]:
    """Whether the collector, which answers, lets us do these things."""
    host, port = _host_and_port(str(htcondor2.param["COLLECTOR_HOST"]))
    address = f"<{socket.gethostbyname(host)}:{port}>"
    yield {name: _may(address, name) for name in names}


def settings(daemon: str, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Configuration of the negotiator, as far as it tells."""
    kind = getattr(htcondor2.AdType, daemon)
    for ad in _asked(lambda: _collector().query(kind, projection=["Name", "MyAddress", "MyType"])):
        try:
            known = htcondor2.RemoteParam(ad)
            yield {"name": ad["Name"], "settings": {name: known.get(name) for name in names}}
        except htcondor2.HTCondorException:
            yield {"name": ad["Name"], "settings": None}


CALLS: Final[Mapping[str, Callable[..., Iterable[object]]]] = {
    call.__name__: call
    for call in (overview, idle, clusters, running, slots, machines, judge, order, addresses, forget, allowed, settings)
}


def _may(address: str, name: str) -> bool:
    try:
        return htcondor2.ping(address, name).get("AuthorizationSucceeded") is True
    except htcondor2.HTCondorException:  # how a refusal of the named right shows
        return False


class _Setting(htcondor2.RemoteParam):  # type: ignore[misc]
    """Sets without first reading all names that there are, for which we would have no right."""

    def refresh(self) -> None:
        self._keys: list[str] = []
        self._cache: dict[str, str] = {}


def _order(address: str, attribute: str, value: int) -> None:
    place = classad2.ClassAd({"MyAddress": address, "MyType": "Generic"})
    _Setting(place)[attribute] = str(value)
    htcondor2.send_command(place, htcondor2.DaemonCommand.Reconfig)


def _collector() -> Any:
    return htcondor2.Collector()


def _schedd(address: str) -> Any:
    return htcondor2.Schedd(classad2.ClassAd({"MyAddress": address, "CondorVersion": htcondor2.version()}))


def _asked(question: Callable[[], Any], address: str | None = None) -> Any:
    """The answer. The bindings tell a refusal and a silence in the same words, so the difference is looked for."""
    try:
        return question()
    except htcondor2.HTCondorException as error:
        where = address or f"<{str(htcondor2.param['COLLECTOR_HOST']).split(',')[0]}>"
        host, port = _host_and_port(where)
        try:
            with socket.create_connection((host, port), timeout=2.0):
                pass
        except OSError as silence:
            raise CallFailed("unreachable", f"{host}:{port} does not answer: {silence.strerror or silence}") from None
        raise CallFailed("refused", f"{host}:{port} answers, but refuses us or fails: {error}") from None


def _host_and_port(address: str) -> tuple[str, int]:
    """Of HTCondor's way to write an address, ``<HOST:PORT?...>``."""
    host, _, port = address.strip("<>").partition("?")[0].rpartition(":")
    return host, int(port)


def _expressions(ad: Any) -> Expressions:
    return {name: str(ad.lookup(name)) for name in ad if name.lower() not in _ABOUT_GROUP}


def _plain(ad: Any, name: str) -> object:
    """The value of an attribute as JSON has it; an expression that has none here is given as its text."""
    value = ad.eval(name)
    if isinstance(value, bool | int | float | str) and not isinstance(value, classad2.Value):
        return value
    if isinstance(value, list):
        return [each if isinstance(each, bool | int | float | str) else str(each) for each in value]
    return str(ad.lookup(name))

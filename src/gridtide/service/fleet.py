"""The site and its machines: what is, why, and operators' orders."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gridtide.control.api import Cycle
from gridtide.errors import Conflict, NotFound
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from gridtide.service import views
from gridtide.service.answers import answer
from gridtide.service.names import Body, WorkerName, is_job, job_id, worker_id
from gridtide.service.routing import UserRoute
from gridtide.service.state import service_of, user_of
from gridtide.service.transfer import follow_events
from gridtide.store.ports import Json

router = APIRouter(route_class=UserRoute, tags=["fleet"])

MOST_WORKERS: Final = 20_000
"""Workers in one answer or one order: about 15 MB of JSON, twice the largest site."""

MOST_CONSOLE: Final = 4 * 1024 * 1024
"""Bytes of a console in one answer: as much as a local machine keeps."""

Text = Annotated[str | None, Query(max_length=200)]
Count = Annotated[int | None, Field(ge=0, le=1_000_000)]


class Scale(Body):
    """Operators' wishes of a group: null takes one back (the site file counts again), what is absent stays."""

    minimum: Count = None
    maximum: Count = None
    desired: Count = None
    hold: bool | None = None


class SomeWorkers(Body):
    """Workers by name."""

    workers: Annotated[list[WorkerName], Field(min_length=1, max_length=MOST_WORKERS)]

    @property
    def ids(self) -> list[WorkerId]:
        """Each once."""
        return [WorkerId(name) for name in dict.fromkeys(self.workers)]


class Drain(SomeWorkers):
    """With ``force`` they are ended at once, whatever they run."""

    force: bool = False


@router.get("/v1/status")
async def status(request: Request) -> Response:
    """The site at a glance: jobs and workers by state, groups with limits and reasons, sources, the last cycle."""
    service = service_of(request)
    control = service.control
    jobs = None if service.pilot is None else await service.pilot.counts()
    wishes = await control.store.wishes()
    shown = views.status(
        service.settings.site,
        control.rules,
        control.worker_counts,
        wishes,
        service.glance(),
        jobs,
        service.clock.now(),
    )
    return answer(shown)


@router.get("/v1/groups")
async def groups(request: Request) -> Response:
    """Groups with their limits, operators' wishes, and counts of workers by state."""
    service = service_of(request)
    control = service.control
    wishes = await control.store.wishes()
    seen, counts = service.glance(), control.worker_counts
    found: list[Json] = [
        views.group(rules, wishes.get(name, Wishes()), counts, seen) for name, rules in control.rules.groups.items()
    ]
    return answer({"groups": found})


@router.get("/v1/workers")
async def workers(
    request: Request,
    group: Text = None,
    state: WorkerState | None = None,
    past: bool = False,
    limit: Annotated[int, Query(ge=1, le=MOST_WORKERS)] = 1000,
) -> Response:
    """Workers, oldest first; with ``past`` those that are gone, latest first."""
    service = service_of(request)
    control = service.control
    if past:
        chosen = await control.store.past_workers(group=None if group is None else GroupName(group), limit=limit)
    else:
        chosen = control.oldest_first()
    if group is not None or state is not None:
        chosen = [
            item for item in chosen if (group is None or item.group == group) and (state is None or item.state is state)
        ]
    why = {} if control.cycle is None else control.cycle.plan.why_worker
    now = service.clock.now()
    listed: list[Json] = [views.worker(item, now=now, why=why.get(item.id)) for item in chosen[:limit]]
    return answer({"workers": listed, "total": len(chosen)})


@router.get("/v1/workers/{worker}")
async def worker(request: Request, worker: str) -> Response:
    """One worker of any state, with its machine's own description and last heartbeat."""
    service = service_of(request)
    control = service.control
    wanted = worker_id(worker)
    found = control.workers.get(wanted) or await control.store.worker(wanted)
    if found is None:
        raise NotFound(f"there is no worker {wanted}")
    host = await control.store.host(wanted)
    cycle = control.cycle
    now = service.clock.now()
    beat = None if cycle is None else cycle.snapshot.heartbeats.get(wanted)
    why = None if cycle is None else cycle.plan.why_worker.get(wanted)
    shown = views.worker(found, now=now, why=why)
    shown["host"] = None if host is None else views.attributes(host)
    shown["heartbeat"] = views.heartbeat(beat, now=now)
    shown["boot"] = views.boot(await control.store.boot(wanted))
    return answer(shown)


@router.get("/v1/workers/{worker}/console")
async def console(
    request: Request, worker: str, most: Annotated[int, Query(ge=1, le=MOST_CONSOLE)] = 65_536
) -> Response:
    """The end of what a worker's machine printed, as it was printed. It may hold what jobs and scripts wrote there."""
    content = await service_of(request).control.console(worker_id(worker), most=most)
    return Response(content, media_type="application/octet-stream")


def _cycle(request: Request) -> Cycle:
    cycle = service_of(request).control.cycle
    if cycle is None:
        raise Conflict("the controller has not ended its first cycle yet", remedy="try again in a few seconds")
    return cycle


@router.get("/v1/queues")
async def queues(request: Request) -> Response:
    """What waits in each queue and what it runs on, as last believed."""
    cycle = _cycle(request)
    now = service_of(request).clock.now()
    found: list[Json] = [views.queue(name, view, cycle.plan, now) for name, view in cycle.snapshot.queues.items()]
    return answer({"queues": found})


@router.get("/v1/clouds")
async def clouds(request: Request) -> Response:
    """Shapes, counts of machines and refused offers of each cloud, as last believed."""
    now = service_of(request).clock.now()
    found: list[Json] = [views.cloud(name, view, now) for name, view in _cycle(request).snapshot.clouds.items()]
    return answer({"clouds": found})


@router.get("/v1/plan")
async def plan(request: Request) -> Response:
    """What the next cycle would do, and why. Nothing is changed."""
    service = service_of(request)
    return answer(views.plan(await service.control.dry_run(), service.clock.now()))


@router.get("/v1/explain/{subject:path}")
async def explain(request: Request, subject: str) -> Response:
    """Why a worker, a group or a job is as it is."""
    service = service_of(request)
    if service.pilot is not None and is_job(subject) and subject not in service.control.rules.groups:
        return answer(views.explanation(views.job_explanation(await service.pilot.job(job_id(subject)))))
    return answer(views.explanation(await service.control.explain(subject)))


@router.get("/v1/events")
async def events(
    request: Request,
    after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    subject: Text = None,
    kind: Text = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    follow: bool = False,
) -> Response:
    """The audit log, oldest first: after a number, or without ``after`` the latest; with ``follow`` without end."""
    service = service_of(request)
    if follow:
        return follow_events(service, after or 0, subject, kind)
    found = await service.control.store.events(
        after=after or 0, subject=subject, kind=kind, limit=limit, newest=after is None
    )
    return answer({"events": [views.event(item) for item in found], "next": found[-1].number if found else after})


@router.post("/v1/groups/{name}/scale")
async def scale(request: Request, name: str, wanted: Scale) -> Response:
    """Set minimum, maximum, desired or hold of a group until taken back."""
    service = service_of(request)
    control = service.control
    group = GroupName(name)
    if group not in control.rules.groups:
        known = ", ".join(sorted(control.rules.groups))
        raise NotFound(f"there is no group {name[:80]!r}", remedy=f"groups are {known}")
    async with service.wishes:
        present = (await control.store.wishes()).get(group, Wishes())
        given = wanted.model_fields_set
        wishes = Wishes(
            minimum=wanted.minimum if "minimum" in given else present.minimum,
            maximum=wanted.maximum if "maximum" in given else present.maximum,
            desired=wanted.desired if "desired" in given else present.desired,
            hold=bool(wanted.hold) if "hold" in given else present.hold,
            closing=present.closing,
            rollout_paused=present.rollout_paused,
        )
        await control.set_wishes(group, wishes, actor=user_of(request).actor)
    limits: dict[str, Json] = {**views.limits(control.rules.groups[group], wishes)}
    return answer({"group": name, **limits, "hold": wishes.hold, "closing": wishes.closing})


@router.post("/v1/workers/drain")
async def drain(request: Request, wanted: Drain) -> Response:
    """Let these workers finish what they run and return them, whatever the load."""
    control = service_of(request).control
    await control.drain(wanted.ids, force=wanted.force, actor=user_of(request).actor)
    return answer({"workers": list(wanted.ids), "force": wanted.force})


@router.post("/v1/workers/undrain")
async def undrain(request: Request, wanted: SomeWorkers) -> Response:
    """Take such an order back."""
    await service_of(request).control.undrain(wanted.ids, actor=user_of(request).actor)
    return answer({"workers": list(wanted.ids)})


@router.post("/v1/site/close")
async def close(request: Request) -> Response:
    """Launch nothing more and drain every worker."""
    await service_of(request).control.close_site(actor=user_of(request).actor)
    return answer({"closing": True})


@router.post("/v1/site/reload")
async def reload(request: Request) -> Response:
    """Read the site file again. A file that is wrong changes nothing."""
    return answer({"changed": await service_of(request).control.reload()})

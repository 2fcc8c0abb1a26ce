"""A small real site in memory for the service's tests: controller, store, pilot queue, tokens, client."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from fastapi import FastAPI

from gridtide.control.api import AliveAnswer, Cycle, Explanation, JoinAnswer, WorkerCounts
from gridtide.errors import AccessDenied, Conflict, GridtideError, InvalidRequest, NotFound, SiteFileError
from gridtide.model.actions import Drain, Launch, Plan
from gridtide.model.boots import Boot, BootKey, BootReport, BootTimes
from gridtide.model.costs import Budget
from gridtide.model.demand import Attribute, DemandRow, Node, NodeState
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.readings import Fresh, Missing, Stale
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, Heartbeat, OfferHealth, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.pilot.protocol import Order
from gridtide.queues.protocol import JoinOrders
from gridtide.service.app import make_app
from gridtide.service.settings import ServiceSettings
from gridtide.service.tokens import Token, TokenKind, digest_of, new_secret, new_user_token
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import AddWorker, Event, Join, JoinToken, Json, Lease, Owner, Role, SetWishes, UpdateWorker
from tests.unit.service.memory_pilot import MemoryPilot

GROUP = GroupName("grid")
SHAPE = Shape(ShapeName("small"), Resources(2, 2048, 4096, 0), price=0.25)
NOW = 1_000_000.0


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time


def reason(text: str = "two jobs wait") -> Reason:
    return Reason(Cause.DEMAND, text)


def worker(name: str, state: WorkerState = WorkerState.INTENDED, group: str = "grid") -> Worker:
    return Worker(
        id=WorkerId(name),
        group=GroupName(group),
        cloud=CloudName("local"),
        shape=SHAPE,
        zone=None,
        generation=Generation("g1"),
        single_use=False,
        state=state,
        since=NOW - 10,
        created=NOW - 60,
        reason=reason(),
    )


def rules() -> SiteRules:
    group = GroupRules(
        name=GROUP,
        queue=QueueName("pilot"),
        clouds=(CloudName("local"),),
        shapes=(SHAPE.name,),
        generation=Generation("g1"),
        minimum=1,
        maximum=8,
        policy=QueuePolicy(),
    )
    cloud = CloudRules(CloudName("local"), Quota(), 0.0, budget=Budget(40.0, 3600.0))
    return SiteRules("torino", {GROUP: group}, {cloud.name: cloud}, (QueueName("pilot"),))


def cycle(workers: Mapping[WorkerId, Worker]) -> Cycle:
    row = DemandRow(Resources(1), 2, NOW - 30, frozenset({(GROUP, SHAPE.name)}), "1 core")
    node = Node("n1", WorkerId("grid-1"), NodeState.ACCEPTING, Resources(2), Resources(1), 1, None)
    queue = QueueView(Fresh((row,), NOW - 2, NOW - 1), Stale(Fresh((node,), NOW - 90, NOW - 89), "503", NOW - 60))
    machines = (
        Machine(MachineId("m1"), WorkerId("grid-1"), MachineState.RUNNING, SHAPE.resources),
        Machine(MachineId("m2"), None, MachineState.RUNNING, SHAPE.resources),
        Machine(MachineId("m3"), WorkerId("grid-0"), MachineState.GONE, SHAPE.resources),
    )
    health: dict[tuple[Zone | None, ShapeName], OfferHealth] = {
        (None, SHAPE.name): OfferHealth(0, NOW + 60, "sold out")
    }
    cloud = CloudView(Fresh(machines, NOW - 2, NOW - 1), Missing("not read yet", NOW - 5), health=health)
    snapshot = Snapshot(
        now=NOW - 1,
        started=NOW - 100,
        queues={QueueName("pilot"): queue},
        clouds={CloudName("local"): cloud},
        workers=workers,
        heartbeats={WorkerId("grid-1"): Heartbeat(NOW - 4, 1, float("nan"), False)},
        wishes={},
        memory={},
    )
    plan = Plan(
        actions=(
            Launch(GROUP, CloudName("local"), SHAPE, None, Generation("g1"), False, 2, reason()),
            Drain(WorkerId("grid-1"), Reason(Cause.IDLE, "idle for 301 s")),
        ),
        why_worker={WorkerId("grid-1"): Reason(Cause.BUSY, "runs one job")},
        why_group={GROUP: reason()},
        why_demand={(QueueName("pilot"), "1 core"): Reason(Cause.STARTING, "a worker boots")},
        look_again=float("inf"),
    )
    return Cycle(7, snapshot, plan, 0.02)


class MemoryControl:
    """Implements ``gridtide.control.api.SiteControl`` over the in-memory store, deciding nothing."""

    def __init__(self, pilot: MemoryPilot | None, clock: HandClock) -> None:
        self.store = MemoryFleetStore()
        self.rules = rules()
        self.workers: dict[WorkerId, Worker] = {}
        self.cycle: Cycle | None = None
        self.pilot = pilot
        self.clock = clock
        self.calls: list[str] = []
        self.lease: Lease | None = None
        self.secrets: dict[WorkerId, bytes] = {}
        self.boot_times: dict[BootKey, BootTimes] = {}
        self.reports: list[BootReport | None] = []
        self.boot: Boot | None = None
        """What the next join is said to have taken."""
        self.orders = JoinOrders("pilot", {"a": "b"}, {"password": "hush"})
        self.checked = 0
        self.order = Order.CONTINUE
        self.reload_error: SiteFileError | None = None

    async def start(self) -> None:
        owner = Owner("host", "boot", 1, 1)
        self.lease = await self.store.take_lease(owner, now=NOW, seconds=1e9, owner_lives=None)

    @property
    def held(self) -> Lease:
        assert self.lease is not None
        return self.lease

    async def add(self, name: str, join_secret: str) -> None:
        intended = worker(name)
        launching = replace(intended, state=WorkerState.LAUNCHING)
        token = JoinToken(digest_of(join_secret), NOW + 600)
        await self.store.commit(self.held, [AddWorker(intended)])
        await self.store.commit(self.held, [UpdateWorker(WorkerState.INTENDED, launching, token)])
        self.workers[launching.id] = launching

    @property
    def worker_counts(self) -> WorkerCounts:
        return Counter((item.group, item.state) for item in self.workers.values())

    def oldest_first(self) -> list[Worker]:
        return sorted(self.workers.values(), key=lambda item: (item.created, item.id))

    def wake(self, why: str) -> None:
        self.calls.append(f"wake {why}")

    async def dry_run(self) -> Cycle:
        return cycle(self.workers)

    async def join(
        self,
        worker: WorkerId,
        join_secret: str,
        worker_secret: str,
        host: Mapping[str, Attribute],
        report: BootReport | None = None,
    ) -> JoinAnswer:
        self.reports.append(report)
        reason = Reason(Cause.JOINED, "it joined")
        digests = digest_of(join_secret), digest_of(worker_secret)
        [outcome] = await self.store.join(
            self.held, [Join(worker, *digests, self.clock.now(), host, reason, self.boot)]
        )
        if isinstance(outcome, GridtideError):
            raise outcome
        self.workers[worker] = joined = outcome.worker
        if self.pilot is not None:
            await self.pilot.admit(worker, joined.group, host, single_use=joined.single_use)
        return JoinAnswer(joined, 600.0, 10.0, self.orders, self.boot)

    async def check_worker(self, worker: WorkerId, secret: str) -> None:
        self.checked += 1
        kept = await self.store.worker_token(worker)
        if worker not in self.workers or kept is None or not hmac.compare_digest(kept, digest_of(secret)):
            raise AccessDenied("no")

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        self.calls.append(f"alive {worker} {load} {running} {draining}")
        return AliveAnswer(self.order, 600.0, 10.0)

    async def done(self, worker: WorkerId, text: str) -> None:
        self.calls.append(f"done {worker} {text}")

    async def set_wishes(self, group: GroupName, wishes: Wishes, *, actor: str) -> None:
        if wishes.minimum is not None and wishes.maximum is not None and wishes.minimum > wishes.maximum:
            raise InvalidRequest("the minimum is above the maximum")
        evidence: dict[str, Json] = {"queue/pilot/demand": {"quality": "fresh", "age": 1.5}}
        event = Event(self.clock.now(), "wishes", group, actor, None, "wishes changed", evidence, group)
        await self.store.commit(self.held, [SetWishes(group, wishes), event])

    def _known(self, workers: Sequence[WorkerId]) -> None:
        for name in workers:
            if name not in self.workers:
                raise NotFound(f"there is no worker {name}")

    async def drain(self, workers: Sequence[WorkerId], *, force: bool, actor: str) -> None:
        self._known(workers)
        self.calls.append(f"drain {','.join(workers)} {force} {actor}")

    async def undrain(self, workers: Sequence[WorkerId], *, actor: str) -> None:
        self._known(workers)
        if WorkerId("grid-2") in workers:
            raise Conflict("grid-2 is past recall")
        self.calls.append(f"undrain {','.join(workers)} {actor}")

    async def explain(self, subject: str) -> Explanation:
        if subject not in self.workers and subject not in self.rules.groups:
            raise NotFound(f"there is no {subject}")
        return Explanation(subject, "joined", "it runs a job", [(NOW - 5, "joined")])

    async def context(self, worker: WorkerId, join_secret: str, reader: str) -> bytes:
        await self.store.read_context(
            self.held,
            worker,
            join_digest=digest_of(join_secret),
            reader_digest=digest_of(reader),
            now=self.clock.now(),
        )
        return b'{"scripts": []}'

    async def console(self, worker: WorkerId, *, most: int) -> bytes:
        if worker not in self.workers:
            raise NotFound(f"no worker is called {worker}")
        return b"\x1b[2J[    0.000000] Linux\r\ngridtide: up\n"[-most:]

    async def close_site(self, *, actor: str) -> None:
        self.calls.append(f"close {actor}")

    async def reload(self) -> str:
        if self.reload_error is not None:
            raise self.reload_error
        return "nothing changed"


@dataclass
class MemorySpawner:
    """Makes workers of scripts, at most two."""

    scripts: dict[WorkerId, bytes] = field(default_factory=dict)
    ended: list[WorkerId] = field(default_factory=list)

    async def spawn(self, script: bytes, *, actor: str) -> WorkerId:
        if len(self.scripts) >= 2:
            raise Conflict("the group is at its maximum of 2 workers")
        name = WorkerId(f"alien-{len(self.scripts)}")
        self.scripts[name] = script
        return name

    async def alive(self, worker: WorkerId) -> None:
        if worker not in self.scripts:
            raise NotFound(f"there is no worker {worker}")

    async def done(self, worker: WorkerId) -> None:
        await self.alive(worker)
        self.ended.append(worker)


@dataclass
class Site:
    """Everything, with a token for each role."""

    app: FastAPI
    control: MemoryControl
    pilot: MemoryPilot
    clock: HandClock
    spawner: MemorySpawner
    tokens: dict[Role, str]
    join_tokens: dict[str, str]
    worker_tokens: dict[str, str]
    raised: bool = True

    def client(
        self, token: str | None = None, *, peer: str = "127.0.0.1", url: str = "http://site"
    ) -> httpx.AsyncClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(self.app, client=(peer, 1), raise_app_exceptions=self.raised)
        return httpx.AsyncClient(transport=transport, base_url=url, headers=headers)

    def as_role(self, role: Role) -> httpx.AsyncClient:
        return self.client(self.tokens[role])

    def as_worker(self, name: str = "grid-1") -> httpx.AsyncClient:
        return self.client(self.worker_tokens[name])

    async def join(self, name: str = "grid-1", **more: object) -> httpx.Response:
        host = {"Cpus": 2, "Arch": "X86_64"}
        body = {"worker_token": self.worker_tokens[name], "host": host, "agent": "0.1.0", **more}
        async with self.client(self.join_tokens[name]) as client:
            return await client.post("/v1/worker/join", json=body)


async def make_site(directory: Path, *, settings: ServiceSettings | None = None, aliec2: bool = True) -> Site:
    """A site with two workers that may join, and a token ``ROLE`` for user ``ROLE-user`` of each role."""
    clock = HandClock()
    pilot = MemoryPilot(directory)
    control = MemoryControl(pilot, clock)
    await control.start()
    join_tokens, worker_tokens, tokens = {}, {}, {}
    for name in ("grid-1", "grid-2"):
        token = Token(TokenKind.JOIN, name, new_secret())
        await control.add(name, token.secret)
        join_tokens[name] = token.reveal()
        worker_tokens[name] = Token(TokenKind.WORKER, name, new_secret()).reveal()
    control.cycle = cycle(control.workers)
    for role in Role:
        shown, kept = new_user_token(f"{role}-user", role, now=NOW)
        await control.store.add_token(kept)
        tokens[role] = shown.reveal()
    spawner = MemorySpawner()
    settings = settings or ServiceSettings("torino", GROUP if aliec2 else None, follow_interval=0.01)
    app = make_app(control, pilot, settings, spawner=spawner, clock=clock)
    return Site(app, control, pilot, clock, spawner, tokens, join_tokens, worker_tokens)

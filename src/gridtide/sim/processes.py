"""The controller as processes on hosts: started, killed, frozen, started anew, all on one store.

Each is the production controller with the production lease and the production clock. What may go wrong happens at the
process's :mod:`gate <gridtide.sim.gate>`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

from gridtide.clock import Clock, SystemClock
from gridtide.control.api import AliveAnswer, JoinAnswer
from gridtide.control.controller import Controller
from gridtide.control.lease import LeaseKeeper
from gridtide.errors import LeaseLost
from gridtide.model.demand import Attribute
from gridtide.model.ids import WorkerId
from gridtide.sim.gate import Gate
from gridtide.store.ports import FleetStore, Owner

RESTART_AFTER: Final = 5.0
"""Seconds until a controller that ended by itself, since it had lost its lease, is started anew by its host."""

_ALONE: Final = 1e9
"""Seconds of a lease that nobody competes for: renewing it would be half of all events."""

LEASE: Final = 60.0
"""Seconds of a lease where controllers may be frozen."""

Build = Callable[[LeaseKeeper, Clock, int], Controller]
"""Of a process's lease, clock and number."""


class Wall:
    """The wall clock of the host. Steps, as real ones do; the monotonic clock beside it does not."""

    def __init__(self, epoch: float) -> None:
        self.offset = 0.0
        """Seconds by which it is wrong."""
        self._epoch = epoch

    def now(self) -> float:
        """What ``date`` would say."""
        return self._epoch + asyncio.get_running_loop().time() + self.offset


@dataclass(slots=True, eq=False)
class Process:
    """One process."""

    number: int
    gate: Gate
    controller: Controller
    task: asyncio.Task[None] | None = None
    leads: bool = False


class Door:
    """What machines reach of a process: the life-cycle part of its service."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def join(
        self, worker: WorkerId, join_secret: str, worker_secret: str, host: Mapping[str, Attribute]
    ) -> JoinAnswer:
        """See SiteControl."""
        with self._process.gate.visit():
            return await self._process.controller.join(worker, join_secret, worker_secret, host)

    def alive(self, worker: WorkerId, *, load: float, running: int, draining: bool) -> AliveAnswer:
        """See SiteControl."""
        return self._process.controller.alive(worker, load=load, running=running, draining=draining)

    async def done(self, worker: WorkerId, text: str) -> None:
        """See SiteControl."""
        with self._process.gate.visit():
            await self._process.controller.done(worker, text)


class Processes:
    """``connect`` is told which door machines find open; None while there is none.

    ``rivals``: whether controllers may compete, so that leases have to be short and renewed.
    """

    def __init__(
        self, build: Build, store: FleetStore, wall: Wall, connect: Callable[[Door | None], None], *, rivals: bool
    ) -> None:
        self._build = build
        self._store = store
        self._wall = wall
        self._connect = connect
        self._lease = LEASE if rivals else _ALONE
        self._living: dict[int, Process] = {}
        self._number = 0
        self._failed: list[BaseException] = []
        self.past_cycles = 0
        """Of processes that have ended."""
        self.leader: Process | None = None

    # --- looking

    @property
    def controller(self) -> Controller | None:
        """The one that leads, as far as machines can tell; None while there is none."""
        return None if self.leader is None else self.leader.controller

    @property
    def cycles(self) -> int:
        """How often all of them have planned."""
        return self.past_cycles + sum(_cycles(process) for process in self._living.values())

    def check(self) -> None:
        """Raise what ended a process and should not have."""
        if self._failed:
            raise self._failed[0]

    # --- what happens to them

    def start(self) -> Process:
        """A new process. It leads as soon as it may."""
        self._number += 1
        gate = Gate()
        clock = SystemClock(self._wall.now, asyncio.get_running_loop().time)
        owner = Owner("simulated", "", self._number, self._number)
        keeper = LeaseKeeper(self._store, owner, self._lives, clock=clock, seconds=self._lease)
        context = copy_context()
        context.run(gate.enter)
        process = Process(self._number, gate, context.run(self._build, keeper, clock, self._number))
        self._living[process.number] = process
        process.task = asyncio.get_running_loop().create_task(
            self._run(process, keeper), name=f"controller {process.number}", context=context
        )
        process.task.add_done_callback(self._note)
        return process

    def kill(self, instants: int, down: float) -> None:
        """``kill -9`` the leader, so many instants from now; its host starts the next one ``down`` seconds later."""
        if self.leader is not None:
            process = self.leader
            process.gate.after(instants, lambda: self._kill(process, down))

    def freeze(self, instants: int, seconds: float) -> None:
        """Stop the leader, so many instants from now, for ``seconds``; then it goes on, whatever happened meanwhile.

        Another one is started at the same time, and waits for the lease.
        """
        if self.leader is not None:
            process = self.leader
            process.gate.after(instants, lambda: self._freeze(process, seconds))

    async def close(self) -> None:
        """End all."""
        tasks = [self._end(process) for process in list(self._living.values())]
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    # --- inside

    async def _run(self, process: Process, keeper: LeaseKeeper) -> None:
        try:
            await keeper.take(lambda _: None)
            await process.controller.load()
            process.leads = True
            self._now_leads(process)
            await process.controller.lead()
        except LeaseLost:
            self._deposed(process)

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed.append(error)

    def _now_leads(self, process: Process) -> None:
        self.leader = process
        self._connect(Door(process))

    def _gone(self, process: Process) -> None:
        self._living.pop(process.number, None)
        self.past_cycles += _cycles(process)
        if self.leader is process:
            self.leader = None
            self._connect(None)

    def _deposed(self, process: Process) -> None:
        """It found out that it does not lead, and ended."""
        self._gone(process)
        if not self._living:
            asyncio.get_running_loop().call_later(RESTART_AFTER, self._start_if_none)

    def _kill(self, process: Process, down: float) -> None:
        if process.number in self._living:
            self._end(process)
            asyncio.get_running_loop().call_later(down, self._start_if_none)

    def _end(self, process: Process) -> asyncio.Task[None] | None:
        self._gone(process)
        process.gate.kill()
        if process.task is not None:
            process.task.cancel()
        return process.task

    def _start_if_none(self) -> None:
        if not any(process.gate.is_open for process in self._living.values()):
            self.start()

    def _freeze(self, process: Process, seconds: float) -> None:
        if process.number not in self._living:
            return
        process.gate.shut()
        if self.leader is process:
            self.leader = None
            self._connect(None)
        standby = self.start()
        asyncio.get_running_loop().call_later(seconds, self._thaw, process, standby)

    def _thaw(self, process: Process, standby: Process) -> None:
        if process.number not in self._living:
            return
        process.gate.open()
        if self.leader is None and not standby.leads:  # it was short: nobody took over
            if standby.number in self._living:
                self._end(standby)
            self._now_leads(process)

    def _lives(self, owner: Owner) -> bool:
        return owner.process in self._living


def _cycles(process: Process) -> int:
    cycle = process.controller.cycle
    return 0 if cycle is None else cycle.number

"""Carries out what the plan says of one cloud: intents become calls, calls become records.

No decision is taken here. What is to be done is read from the fleet: INTENDED workers want a launch call, TERMINATING
ones a terminate call, until the cloud has confirmed. So a crash between any two lines loses nothing: the next
process finds the same work in the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import structlog

from gridtide.clock import Clock
from gridtide.clouds.protocol import Cloud, LaunchRequest
from gridtide.control.backoff import Backoff
from gridtide.control.breaker import Breaker
from gridtide.control.fleet import Fleet, event_of, moved
from gridtide.control.tokens import MakeSecret, digest, join_token
from gridtide.errors import (
    CloudError,
    CloudUnavailable,
    GridtideError,
    LaunchRejected,
    LeaseLost,
    NotSent,
    StoreError,
    Throttled,
)
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import GroupRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.joining import token_life
from gridtide.store.ports import Change, JoinToken, UpdateWorker

log = structlog.get_logger("gridtide.clouds")

# Calls under way at the same time for one cloud. More helps a slow API; fewer protects a weak one.
_CALLS = 4
# Seconds after the decision on a launch in which its call may begin. With more, CALL_ALLOWANCE of planning/lifecycle.py
# is too little, and a process that was stopped in between makes a machine that nobody counts. With less, a store that
# takes long for its commits lets nothing be launched.
_BEGIN_WITHIN = 20.0
# Workers in one bulk call: an answer that is lost leaves at most this many machines to be found by their tags.
_BULK = 200
# Seconds before a terminate that is not confirmed is asked for again, doubling up to the most. Less hammers
# a cloud that is slow to list; more leaves a machine that survived its first terminate running for longer.
_AGAIN_AFTER = 2.0
_AGAIN_MOST = 60.0


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """What the hands need of the site beside the workers themselves."""

    render: Callable[[Worker, str], bytes]
    group: Callable[[Worker], GroupRules | None]
    launch_deadline: float
    call_deadline: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """A machine whose end was asked for."""

    at: float
    """When the answer came."""
    failed: bool
    backoff: Backoff
    again: float
    """Not before then."""


class CloudHands:
    """One per cloud. ``observe`` asks for a new listing; ``happened`` lets the loop plan anew, ``stir`` lets it look at
    its timers."""

    def __init__(
        self,
        cloud: Cloud,
        fleet: Fleet,
        breaker: Breaker,
        *,
        clock: Clock,
        random: Random,
        make_secret: MakeSecret,
        may_act: Callable[[], None],
        happened: Callable[[str], None],
        stir: Callable[[], None],
        observe: Callable[[], None],
    ) -> None:
        self.cloud = cloud
        self.settings: LaunchSettings
        """Replaced when the site file changes."""
        self._fleet = fleet
        self._breaker = breaker
        self._clock = clock
        self._random = random
        self._make_secret = make_secret
        self._may_act = may_act
        self._happened = happened
        self._stir = stir
        self._observe = observe
        self._launching: set[WorkerId] = set()
        self._ending: set[MachineId] = set()
        self._asked: dict[MachineId, _Asked] = {}
        self._unended: dict[MachineId, None] = {}
        """What was asked for last."""
        self._quiet_until = float("-inf")
        """The cloud itself asked not to be called before."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_CALLS)

    def launch_intended(self) -> None:
        """Start launch calls for the workers that wait for one."""
        waiting = [
            worker
            for worker in self._fleet.in_state(WorkerState.INTENDED).values()
            if worker.cloud == self.cloud.name and worker.id not in self._launching
        ]
        for start in range(0, len(waiting), _BULK):
            batch = waiting[start : start + _BULK]
            self._launching.update(worker.id for worker in batch)
            self._spawn(self._launch(batch), "launch")

    def terminate(self, machines: Sequence[MachineId], listed: float) -> None:
        """Start terminate calls for all of these (and no others), except where one is under way or was made just now.

        A call that succeeded is repeated too, ever more rarely, when a listing that was begun after it (``listed``)
        still does not confirm it.
        """
        now = self._clock.now()
        unended = dict.fromkeys(machines)
        self._unended = unended
        self._asked = {machine: asked for machine, asked in self._asked.items() if machine in unended}
        wanted = [
            machine
            for machine in unended
            if machine not in self._ending
            and self._not_before(machine) <= now
            and ((asked := self._asked.get(machine)) is None or asked.failed or asked.at <= listed)
        ]
        for start in range(0, len(wanted), _BULK):
            batch = wanted[start : start + _BULK]
            self._ending.update(batch)
            self._spawn(self._terminate(batch), "terminate")

    def next_attempt(self) -> float | None:
        """When a terminate that has failed may be tried again. One that has not is looked at with the next listing."""
        failed = (
            machine
            for machine in self._unended
            if machine not in self._ending and ((asked := self._asked.get(machine)) is None or asked.failed)
        )
        return min((self._not_before(machine) for machine in failed), default=None)

    def _not_before(self, machine: MachineId) -> float:
        """When a machine may be asked for: each has its own patience, and Retry-After is meant for all of them."""
        asked = self._asked.get(machine)
        return self._quiet_until if asked is None else max(self._quiet_until, asked.again)

    async def stop(self) -> None:
        """Abandon the calls under way: their workers are recorded as LAUNCHING or TERMINATING."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, bool], what: str) -> None:
        task = asyncio.create_task(self._guarded(work, what), name=f"{what} {self.cloud.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[None, None, bool], what: str) -> None:
        """``work`` returns whether something is to be planned for."""
        news = True
        try:
            async with self._slots:
                news = await work
        except LeaseLost:
            log.warning("not done: another controller leads", what=what, cloud=self.cloud.name)
        except StoreError as error:
            log.warning("not recorded", what=what, cloud=self.cloud.name, error=str(error))
        finally:
            work.close()
            if news:
                self._happened(f"{what} on {self.cloud.name}")
            else:
                self._stir()

    # --- launching

    async def _launch(self, batch: Sequence[Worker]) -> bool:
        ids = {worker.id for worker in batch}
        outcomes: Mapping[WorkerId, MachineId | CloudError] = {}
        try:
            requests, recorded = await self._record_calls(ids)
            if requests:
                outcomes = await self._call_launch(requests, recorded)
                await self._fleet.change(lambda workers: self._record_outcomes(workers, outcomes))
        finally:
            self._launching -= ids
        # Those that were made start as it was planned. All others have to be planned for.
        return len(outcomes) < len(ids) or any(isinstance(outcome, CloudError) for outcome in outcomes.values())

    async def _record_calls(self, ids: set[WorkerId]) -> tuple[list[LaunchRequest], float]:
        """The calls to make, and the time of their record."""
        requests: list[LaunchRequest] = []
        now = float("-inf")

        def decide(workers: Mapping[WorkerId, Worker]) -> list[Change]:
            nonlocal now
            now = self._clock.now()
            changes: list[Change] = []
            for worker in [workers[each] for each in ids if each in workers]:
                rules = self.settings.group(worker)
                if worker.state is not WorkerState.INTENDED or rules is None:
                    continue
                secret = self._make_secret()
                called = replace(
                    moved(worker, WorkerState.LAUNCHING, Reason(Cause.LAUNCH_CALLED, "the cloud is being asked"), now),
                    launched=now,
                )
                try:
                    user_data = self.settings.render(called, join_token(worker.id, secret))
                except GridtideError as error:
                    refusal = LaunchRejected(str(error), where=f"context of {worker.group}")
                    self._breaker.refused((worker.zone, worker.shape.name), refusal, now)
                    changes += self._refused(called, refusal)
                    continue
                token = JoinToken(digest(secret), now + token_life(rules))
                changes += [
                    UpdateWorker(WorkerState.INTENDED, called, token),
                    event_of(called, actor="controller", now=now),
                ]
                self._breaker.launching(worker.id, (worker.zone, worker.shape.name))
                requests.append(
                    LaunchRequest(
                        worker.id,
                        worker.group,
                        worker.shape.name,
                        worker.zone,
                        worker.image,
                        user_data,
                    )
                )
            return changes

        await self._fleet.change(decide)
        return requests, now

    async def _call_launch(
        self, requests: Sequence[LaunchRequest], recorded: float
    ) -> Mapping[WorkerId, MachineId | CloudError]:
        self._may_act()
        held_up = self._clock.now() - recorded
        if held_up > _BEGIN_WITHIN:
            late = NotSent(f"not sent: {held_up:.0f} s passed between its record and the call", where=self.cloud.name)
            return {request.worker: late for request in requests}
        try:
            async with asyncio.timeout(self.settings.launch_deadline):
                answer = await self.cloud.launch(requests)
        except TimeoutError:
            error: CloudError = CloudUnavailable(
                f"no answer to the launch within {self.settings.launch_deadline:g} s", where=self.cloud.name
            )
            return {request.worker: error for request in requests}
        except CloudError as failure:
            return {request.worker: failure for request in requests}
        # The barrier of this task: a driver's fault must leave its workers findable, so it counts as a lost answer.
        except Exception as fault:
            log.exception("driver fault", cloud=self.cloud.name)
            error = CloudUnavailable(f"the driver failed: {type(fault).__name__}: {fault}", where=self.cloud.name)
            return {request.worker: error for request in requests}
        unanswered = CloudUnavailable("the cloud did not say what became of the launch", where=self.cloud.name)
        return {request.worker: answer.get(request.worker, unanswered) for request in requests}

    def _record_outcomes(
        self, workers: Mapping[WorkerId, Worker], outcomes: Mapping[WorkerId, MachineId | CloudError]
    ) -> list[Change]:
        now = self._clock.now()
        changes: list[Change] = []
        # Refusals last: of an answer that accepts some and refuses others, what counts is that there is no more room.
        for name in sorted(outcomes, key=lambda worker: (isinstance(outcomes[worker], CloudError), worker)):
            outcome = outcomes[name]
            worker = workers.get(name)
            if worker is None:
                continue  # ended meanwhile; if a machine was made it is found by its tag
            key = (worker.zone, worker.shape.name)
            if isinstance(outcome, CloudError):
                self._breaker.refused(key, outcome, now)
                if worker.state is WorkerState.LAUNCHING:
                    changes += (
                        self._unknown(worker, outcome)
                        if _may_have_launched(outcome)
                        else self._refused(worker, outcome)
                    )
                continue
            self._breaker.launched(key)
            if worker.state is WorkerState.LAUNCHING:
                reason = Reason(Cause.LAUNCHED, f"{self.cloud.name} made machine {outcome}")
                booting = replace(moved(worker, WorkerState.BOOTING, reason, now), machine=outcome)
                changes += [
                    UpdateWorker(WorkerState.LAUNCHING, booting),
                    event_of(booting, actor="controller", now=now),
                ]
            elif worker.machine is None:
                changes.append(UpdateWorker(worker.state, replace(worker, machine=outcome)))
        return changes

    def _unknown(self, worker: Worker, error: CloudError) -> list[Change]:
        reason = Reason(Cause.LAUNCH_CALLED, f"the cloud's answer was lost, its listing will tell: {error}")
        log.warning("launch outcome unknown", worker=worker.id, error=str(error))
        return [UpdateWorker(worker.state, replace(worker, reason=reason))]

    def _refused(self, worker: Worker, error: CloudError) -> list[Change]:
        now = self._clock.now()
        log.warning("launch refused", worker=worker.id, error=str(error))
        failed = moved(worker, WorkerState.FAILED, Reason(Cause.LAUNCH_REFUSED, str(error)), now)
        before = self._fleet.workers[worker.id].state
        changes: list[Change] = []
        if before is WorkerState.INTENDED:
            changes.append(UpdateWorker(before, worker))
        return [
            *changes,
            UpdateWorker(WorkerState.LAUNCHING, failed),
            event_of(failed, actor="controller", now=now),
        ]

    # --- terminating

    async def _terminate(self, batch: Sequence[MachineId]) -> bool:
        try:
            self._may_act()
            outcomes = await self._call_terminate(batch)
            now = self._clock.now()
            for machine in batch:
                error = outcomes.get(machine, CloudUnavailable("the cloud did not say", where=self.cloud.name))
                if error is not None:
                    log.warning("terminate failed", cloud=self.cloud.name, machine=machine, error=str(error))
                asked = self._asked.get(machine)
                backoff = (
                    Backoff(self._random, first=_AGAIN_AFTER, limit=_AGAIN_MOST) if asked is None else asked.backoff
                )
                self._asked[machine] = _Asked(now, error is not None, backoff, now + backoff.failed())
                if isinstance(error, Throttled):
                    self._quiet_until = max(self._quiet_until, now + (error.retry_after or 0.0))
            self._observe()
        finally:
            self._ending -= set(batch)
        return False  # only a listing tells what came of it

    async def _call_terminate(self, batch: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        try:
            async with asyncio.timeout(self.settings.call_deadline):
                return await self.cloud.terminate(batch)
        except TimeoutError:
            late = CloudUnavailable(f"no answer within {self.settings.call_deadline:g} s", where=self.cloud.name)
            return dict.fromkeys(batch, late)
        except CloudError as error:
            return dict.fromkeys(batch, error)
        # The barrier of this task, as above: the call is simply repeated later.
        except Exception as fault:
            log.exception("driver fault", cloud=self.cloud.name)
            return dict.fromkeys(batch, CloudUnavailable(f"the driver failed: {fault}", where=self.cloud.name))


def _may_have_launched(error: CloudError) -> bool:
    """By the protocol, only an unavailable cloud leaves the outcome open."""
    return isinstance(error, CloudUnavailable)

"""The queue against a simple model of it: whatever happens in whatever order, each job ends exactly
once, nothing goes to a draining worker, and the counters count."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.pilot import nodes
from gridtide.pilot.hearing import hear
from gridtide.pilot.protocol import EndCause, JobId, JobRequest, JobState, Order
from tests.unit.pilot.support import LEASE, ONE_CORE, Site, end

T = TypeVar("T")
WORKERS = [f"w{number}" for number in range(3)]
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
MAXIMUM_LOSSES = 3


@dataclass
class _Job:
    state: JobState = JobState.WAITING
    attempt: int = 0
    worker: str = ""
    losses: int = 0
    cancelling: bool = False
    ends: int = 0

    def end(self, state: JobState) -> None:
        self.state = state
        self.ends += 1

    def lose(self) -> None:
        self.losses += 1
        if self.cancelling:
            self.end(JobState.CANCELLED)
        elif self.losses >= MAXIMUM_LOSSES:
            self.end(JobState.FAILED)
        else:
            self.state = JobState.WAITING


@dataclass
class _Worker:
    draining: bool = False
    final: bool = False
    request: str = ""
    given: tuple[str, int] | None = None
    runs: set[tuple[str, int]] = field(default_factory=set)
    """What the machine runs, whether or not the queue still wants it."""


def _listed(worker: _Worker) -> list[tuple[JobId, int]]:
    return [(JobId(job), attempt) for job, attempt in sorted(worker.runs)]


class Machine(RuleBasedStateMachine):
    """Model and queue side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = tempfile.TemporaryDirectory()
        self.site = self.run(self._make())
        self.jobs: dict[str, _Job] = {}
        self.workers: dict[str, _Worker] = {}
        self.reported: dict[tuple[str, int], str] = {}
        """Accepted reports: attempt -> worker."""
        self.numbers = 0

    async def _make(self) -> Site:
        return Site(Path(self.home.name))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the machine's own loop."""
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Release everything."""
        self.run(self.site.database.close())
        self.loop.close()
        self.home.cleanup()

    # --- users

    @rule(size=st.integers(1, 3))
    def submit(self, size: int) -> None:
        number = self.run(self.site.submit(f'Executable = "/bin/true"; Array = {size};'))
        self.jobs |= {f"{number}.{index}": _Job() for index in range(size)}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[name]
        changed = self.run(self.site.queue.cancel(jobs=[JobId(name)], submission=None, user="anna"))
        expected = job.state is JobState.WAITING or (job.state is JobState.RUNNING and not job.cancelling)
        assert changed == expected
        if job.state is JobState.WAITING:
            job.end(JobState.CANCELLED)
        elif job.state is JobState.RUNNING:
            job.cancelling = True

    # --- workers

    @rule(name=st.sampled_from(WORKERS))
    def admit(self, name: str) -> None:
        self.run(self.site.admit(name, {**ONE_CORE, "Cpus": 2, "Memory": 2048}))
        self.workers.setdefault(name, _Worker())

    def _held(self, name: str) -> list[_Job]:
        return [job for job in self.jobs.values() if job.state is JobState.RUNNING and job.worker == name]

    def _order(self, name: str, worker: _Worker) -> Order:
        if not worker.draining:
            return Order.CONTINUE
        if self._held(name):
            return Order.DRAIN
        worker.final = True
        return Order.STOP

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), cores=st.integers(0, 2))
    def request(self, data: st.DataObject, cores: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[name]
        self.numbers += 1
        worker.request = f"r{self.numbers}"
        answer = self.run(self._ask(name, worker.request, cores))
        assert answer.order is self._order(name, worker)
        waiting = [key for key, job in self.jobs.items() if job.state is JobState.WAITING]
        may = not worker.draining and cores > 0 and len(self._held(name)) < 2 and bool(waiting)
        assert (answer.assignment is not None) == may
        worker.given = None
        if answer.assignment is not None:
            job = self.jobs[answer.assignment.job]
            assert job.state is JobState.WAITING
            assert answer.assignment.job == min(waiting, key=lambda key: [int(part) for part in key.split(".")])
            job.state, job.worker, job.attempt = JobState.RUNNING, name, job.attempt + 1
            assert answer.assignment.attempt == job.attempt
            worker.given = (answer.assignment.job, job.attempt)
            worker.runs.add(worker.given)

    async def _ask(self, name: str, number: str, cores: int) -> Any:
        request = JobRequest(number, Resources(cores, 2048, 10_000))
        return await self.site.queue.request(WorkerId(name), request, wait=0)

    @precondition(lambda self: any(worker.given for worker in self.workers.values()))
    @rule(data=st.data())
    def repeat_request(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(key for key, worker in self.workers.items() if worker.given)))
        worker = self.workers[name]
        assert worker.given is not None
        job = self.jobs[worker.given[0]]
        still = job.state is JobState.RUNNING and (job.worker, job.attempt) == (name, worker.given[1])
        answer = self.run(self._ask(name, worker.request, 2))
        if still:
            assert (answer.assignment.job, answer.assignment.attempt) == worker.given
        else:
            assert answer.assignment is None
            self._order(name, worker)

    @precondition(lambda self: any(worker.runs for worker in self.workers.values()))
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1]), obeys=st.booleans(), keeps=st.booleans())
    def finish(self, data: st.DataObject, code: int, obeys: bool, keeps: bool) -> None:
        """Also late, also again (``keeps``), and after a cancel with either of two causes."""
        name = data.draw(st.sampled_from(sorted(key for key, worker in self.workers.items() if worker.runs)))
        attempt = data.draw(st.sampled_from(sorted(self.workers[name].runs)))
        job = self.jobs[attempt[0]]
        cancelled = obeys and job.cancelling
        cause = EndCause.CANCELLED if cancelled else EndCause.EXITED
        accepted = self.run(self.site.queue.finished(WorkerId(name), end(*attempt, code, cause)))
        current = job.attempt == attempt[1] and job.worker == name
        if current and job.state in (JobState.RUNNING, JobState.WAITING):
            assert accepted
            job.end(JobState.CANCELLED if cancelled else JobState.FAILED if code else JobState.DONE)
            self.reported[attempt] = name
        else:
            assert accepted == (attempt in self.reported)
        if not keeps:
            self.workers[name].runs.discard(attempt)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[name]
        order, cancel = self.run(self.site.queue.alive(WorkerId(name), _listed(worker), draining=worker.draining))
        unwanted = set()
        for key, number in worker.runs:
            job = self.jobs[key]
            current = job.worker == name and job.attempt == number
            if current and job.state is JobState.WAITING:  # given up, and it goes on
                job.state, job.losses = JobState.RUNNING, job.losses - 1
            elif not current or job.state is not JobState.RUNNING or job.cancelling:
                unwanted.add(key)
        assert set(cancel) == unwanted
        if worker.draining and not worker.runs:
            assert order is self._order(name, worker)
        else:
            assert order is (Order.DRAIN if worker.draining else Order.CONTINUE)

    # --- trouble

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def silence(self, data: st.DataObject) -> None:
        """One worker is silent for longer than the lease, the others are not."""
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.run(self.site.listen(LEASE + 1))
        for other in self.workers:
            if other != name:
                self.run(self._ask(other, "contact", 0))
                self._order(other, self.workers[other])
        self.run(self.site.queue.sweep())
        for job in self._held(name):
            job.lose()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def machine_gone(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.run(self.site.queue.remove([WorkerId(name)]))
        for job in self._held(name):
            job.lose()
        del self.workers[name]

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), draining=st.booleans())
    def set_draining(self, data: st.DataObject, draining: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[name]
        taken = self.run(self.site.queue.set_draining([WorkerId(name)], draining))
        assert taken == ([name] if draining or not worker.final else [])
        if taken:
            worker.draining = draining

    @rule()
    def restart(self) -> None:
        self.site.restart()

    # --- what is always true

    @invariant()
    def what_still_stands_is_what_the_tables_say(self) -> None:
        for name, worker in self.workers.items():
            listed = _listed(worker)
            told = self.site.queue.heard(WorkerId(name), listed, draining=worker.draining)
            if told is not None:
                heard = self.run(
                    self.site.database.read(partial(hear, worker=WorkerId(name), listed=listed, insists=False))
                )
                assert told == (heard.order, heard.cancel)
                assert heard.settled
                assert not heard.missing

    @invariant()
    def nodes_are_what_the_tables_say(self) -> None:
        shown = self.run(self.site.queue.nodes())
        there = self.run(self.site.database.read(partial(nodes.read, wanted=None, before=nodes.Listing()))).nodes
        assert [(node.name, node.running, node.free, node.idle_since) for node in shown] == [
            (node.name, node.running, node.free, node.idle_since) for node in there
        ]
        for node, really in zip(shown, there, strict=True):
            assert node.state in {really.state, NodeState.UNAVAILABLE}

    @invariant()
    def same_as_the_model(self) -> None:
        async def look() -> dict[str, tuple[JobState, int]]:
            return {record.id: (record.state, record.attempt) for record in await self.site.queue.jobs(limit=1000)}

        assert self.run(look()) == {name: (job.state, job.attempt) for name, job in self.jobs.items()}
        for job in self.jobs.values():
            assert job.ends == (job.state in ENDED)
            assert job.losses <= MAXIMUM_LOSSES
        self.run(self.site.check_counters())


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)

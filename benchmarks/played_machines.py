"""Plays the machines of :mod:`played_cloud`: thousands of agents in one process, each with connections of its own.

They speak to the service by the very client of the real agent, and do what it does: join with the token of their
context, send signs of life, ask for jobs with long polls, report their ends, drain and leave as they are told. Only
what they run is played: a job ends when the player is told to let the jobs end.

    python -m benchmarks.played_machines SOCKET BOOT

``BOOT``: seconds from a launch call to the agent's first word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.played_cloud import LONGEST_LINE, SLOT
from gridtide.agent.agent import Backoff, NoAnswer, Refused, Resources, Service
from gridtide.agent.agent import Context as AgentContext
from gridtide.model.machines import MachineState

_POLL: Final = 20.0
_HOST: Final = {"Cpus": 1, "Memory": 1024, "Disk": 10_240, "Gpus": 0, "Arch": "X86_64", "OpSys": "LINUX"}
_SPREAD: Final = 5.0
"""Seconds over which jobs end once they may."""

Json = dict[str, Any]


@dataclass(slots=True)
class Counts:
    """What has happened so far, for whoever asks."""

    joined: int = 0
    running: int = 0
    done: int = 0
    killed: int = 0
    """Jobs that ran on a machine when it was terminated."""
    heartbeats: int = 0
    refused: int = 0
    """Answers that no agent should get."""


@dataclass(slots=True)
class Player:
    """The cloud's other side."""

    boot: float
    counts: Counts = field(default_factory=Counts)
    machines: dict[str, PlayedMachine] = field(default_factory=dict)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    may_beat: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, path: str) -> None:
        """Until cancelled."""
        self.may_beat.set()
        server = await asyncio.start_unix_server(self._meet, path, limit=LONGEST_LINE)
        async with server:
            await server.serve_forever()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            question = json.loads(await reader.readline())
            writer.write(json.dumps(self._answer(question)).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _answer(self, question: Mapping[str, Any]) -> object:
        match question["what"]:
            case "machines":
                return [(machine.name, machine.state.value) for machine in self.machines.values()]
            case "launch":
                for name, context in question["contexts"].items():
                    if name not in self.machines:
                        self.machines[name] = PlayedMachine(name, json.loads(context), self)
            case "terminate":
                for name in question["machines"]:
                    machine = self.machines.pop(name, None)
                    if machine is not None:
                        self.counts.killed += machine.busy
                        machine.end()
            case "counts":
                return {name: getattr(self.counts, name) for name in Counts.__slots__}
            case "end-jobs":
                self.may_end.set()
            case "beat":
                (self.may_beat.set if question["on"] else self.may_beat.clear)()
        return None


class PlayedMachine:
    """A machine and the agent in it."""

    def __init__(self, name: str, context: Mapping[str, Any], player: Player) -> None:
        self.name = name
        self.state = MachineState.STARTING
        self.runs: dict[str, int] = {}
        """Attempts of jobs, until their ends are reported."""
        self.busy = False
        """Whether a job's process lives."""
        self._context = context
        self._player = player
        self._draining = self._stopped = False
        self._question = 0
        self._nudge = asyncio.Event()
        self._asking: asyncio.Future[Json] | None = None
        self._heartbeat = 10.0
        self._task = asyncio.create_task(self._live())

    def end(self) -> None:
        """Pull the plug."""
        self._task.cancel()

    async def _live(self) -> None:
        await asyncio.sleep(self._player.boot)
        self.state = MachineState.RUNNING
        service = Service(_agent_context(self.name, self._context))
        service.token = f"gtw_{self.name}.{secrets.token_urlsafe(32)}"
        try:
            await self._join(service)
            self._player.counts.joined += 1
            await self._tell(service)
            work = [asyncio.create_task(self._beat(service)), asyncio.create_task(self._work(service))]
            try:
                await work[1]
            finally:
                for task in work:
                    task.cancel()
            await self._persist(lambda: service.ask("POST", "/v1/worker/done", {"text": "drained and empty"}))
            self.state = MachineState.STOPPED
        except Refused:
            self._player.counts.refused += 1
        finally:
            service.close()

    async def _join(self, service: Service) -> None:
        values = {"worker_token": service.token, "host": {**_HOST, **self._context["attributes"]}, "agent": "played"}
        token = self._context["join_token"]
        answer = await self._persist(lambda: service.ask("POST", "/v1/worker/join", values, token=token))
        self._heartbeat = answer["heartbeat"]

    async def _persist(self, ask: Callable[[], Awaitable[Json]]) -> Json:
        backoff = Backoff()
        while True:
            try:
                return await ask()
            except NoAnswer as silence:
                await asyncio.sleep(backoff.pause(silence.retry_after))

    async def _beat(self, service: Service) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat):
                    await self._nudge.wait()
            self._nudge.clear()
            if not self._player.may_beat.is_set():
                await self._player.may_beat.wait()
                await asyncio.sleep(random.uniform(0.0, self._heartbeat))
            await self._tell(service)

    async def _tell(self, service: Service) -> None:
        """A sign of life."""

        def ask() -> Awaitable[Json]:
            running = [{"job": job, "attempt": attempt} for job, attempt in self.runs.items()]
            values = {"load": float(len(running)), "running": running, "draining": self._draining}
            return service.ask("POST", "/v1/worker/alive", values)

        self._heed(await self._persist(ask))
        self._player.counts.heartbeats += 1

    def _heed(self, answer: Json) -> None:
        draining = answer["order"] != "continue"
        if draining is not self._draining:
            self._draining = draining
            self._nudge.set()
            if draining and self._asking is not None:
                self._asking.cancel()  # no need to wait until the open question is answered
        self._stopped = self._stopped or answer["order"] == "stop"

    async def _work(self, service: Service) -> None:
        """Ask and run, until told to stop."""
        job: Json | None = None
        while not self._stopped:
            if job is None:
                job = await self._ask(service)
            else:
                job = await self._run(service, job)

    def _next_question(self, wait: float) -> Json:
        free = {"cores": 1, "memory": 1024, "disk": 10_240, "gpus": 0}
        return {"number": f"q{self._question}", "free": free, "wait": 0.0 if self._draining else wait}

    async def _ask(self, service: Service) -> Json | None:
        question = self._next_question(_POLL)
        self._asking = asking = asyncio.ensure_future(
            self._persist(lambda: service.ask("POST", "/v1/pilot/request", question, wait=question["wait"]))
        )
        try:
            await asyncio.wait({asking})
        finally:
            self._asking = None
            asking.cancel()
        # Called off: the same question is asked again, and its answer is not lost.
        return None if asking.cancelled() else self._taken(asking.result())

    def _taken(self, answer: Json) -> Json | None:
        self._heed(answer)
        job: Json | None = answer["job"]
        if job is not None:
            self._question += 1
            self.runs[job["job"]] = job["attempt"]
            self._player.counts.running += 1
        return job

    async def _run(self, service: Service, job: Json) -> Json | None:
        began = time.monotonic()
        self.busy = True
        await self._player.may_end.wait()
        await asyncio.sleep(random.uniform(0.0, _SPREAD))
        self.busy = False
        seconds = time.monotonic() - began
        values = {
            "attempt": job["attempt"],
            "cause": "exited",
            "exit_code": 0,
            "signal": None,
            "text": "",
            "wall_seconds": seconds,
            "cpu_seconds": seconds,
            "peak_memory": 1,
            "request": self._next_question(0.0),
        }
        path = f"/v1/pilot/jobs/{job['job']}/finished"
        answer = await self._persist(lambda: service.ask("POST", path, values))
        del self.runs[job["job"]]
        self._player.counts.running -= 1
        self._player.counts.done += 1
        return self._taken(answer)


def _agent_context(name: str, values: Mapping[str, Any]) -> AgentContext:
    size = SLOT.resources
    return AgentContext(
        path=Path(),
        worker=name,
        service=values["service"],
        ca=values.get("ca"),
        join_token=values["join_token"],
        shutdown="poweroff",
        resources=Resources(size.cores, size.memory, size.disk, size.gpus),
        attributes=values["attributes"],
        grace=10.0,
        sample=1.0,
    )


def ask(path: str, question: Mapping[str, object]) -> Any:
    """Of a player, from another process."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(json.dumps(question).encode() + b"\n")
        with line.makefile("rb") as answer:
            return json.loads(answer.readline())


async def _play(path: str, boot: float) -> None:
    await Player(boot).serve(path)


def main() -> None:
    """Until it is ended."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_play(sys.argv[1], float(sys.argv[2])))


if __name__ == "__main__":
    main()

"""A service double and real agent processes, ended with all that they started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.real.agent.service_double import PATIENCE, Json, ServiceDouble

AGENT = Path(__file__).parents[3] / "src" / "gridtide" / "agent" / "agent.py"


class Machine:
    """One machine's directory, with an agent that can be started more than once."""

    def __init__(self, directory: Path, service: list[str], mark: str) -> None:
        self.directory = directory
        self.mark = mark
        self.log = directory / "agent.log"
        self.values: dict[str, Json] = {
            "version": 1,
            "worker": "w1",
            "service": list(service),
            "join_token": "gtj_w1.SECRET",
            "group": "grid",
            "shutdown": "exit",
            "resources": {"cores": 1, "memory": 2048, "disk": 2048, "gpus": 0},
            "attributes": {"GridtideGroup": "grid"},
            "grace": 0.5,
            "sample": 0.1,
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, *, python: str = sys.executable, file_limit: int | None = None, **changes: Json
    ) -> subprocess.Popen[bytes]:
        """Start an agent; the first time with a new context file. ``file_limit`` (bytes) holds for jobs too."""
        path = self.directory / "context.json"
        if not path.exists():
            path.write_text(json.dumps({**self.values, **changes}))
            path.chmod(0o600)
        environment = {**os.environ, "GRIDTIDE_MACHINE": self.mark, "AGENT_SECRET": "must not be seen"}
        with self.log.open("ab") as log:
            command = [python, "-I", str(AGENT), "--context", str(path)]
            if file_limit is not None:
                command = ["/bin/sh", "-c", f'ulimit -f {file_limit // 512}; exec "$@"', "sh", *command]
            process = subprocess.Popen(command, stderr=log, env=environment, stdin=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def processes(self) -> list[int]:
        """All that live with this machine's mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    marked = f"GRIDTIDE_MACHINE={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if marked:
                    found.append(int(entry.name))
        return found

    def end(self) -> None:
        """Kill everything of this machine."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._processes:
            process.wait(PATIENCE)


@pytest.fixture
def service() -> Iterator[ServiceDouble]:
    """Not started yet."""
    double = ServiceDouble()
    yield double
    double.stop()


MachineMaker = Callable[..., Machine]


@pytest.fixture
def machine_at(tmp_path: Path) -> Iterator[MachineMaker]:
    """Makes a machine for these service addresses."""
    made: list[Machine] = []

    def make(*addresses: str) -> Machine:
        directory = tmp_path / f"machine{len(made)}"
        directory.mkdir()
        made.append(Machine(directory, list(addresses), f"test-{os.getpid()}-{tmp_path.name}-{len(made)}"))
        return made[-1]

    yield make
    for machine in made:
        machine.end()


@pytest.fixture
def machine(service: ServiceDouble, machine_at: MachineMaker) -> Machine:
    """A machine of a service that is up."""
    return machine_at(service.start())


POLL = 20.0
"""Seconds of the agent's long poll: what takes half of it has not waited for its end."""


def fall_silent(service: ServiceDouble, *, lease: float) -> None:
    """The service goes away. Only just before is its workers' lease so short: till then a slow machine loses none."""
    service.lease, seen = lease, len(service.signs)
    service.wait(lambda: len(service.signs) > seen + 1)
    service.stop()


def as_map(value: Json) -> Mapping[str, Json]:
    """For mypy: an object and nothing else."""
    assert isinstance(value, dict)
    return value


def soon(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """AssertionError when it does not come true in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)

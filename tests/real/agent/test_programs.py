"""Programs of a batch node, without the rest of the agent: claims, limits, pauses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gridtide.agent.agent import Agent, Command, Daemon, OrderedService, claim
from tests.real.agent.batch import lives
from tests.real.agent.conftest import AGENT, soon


class Starter:
    """Stands for agent and zygote: starts what is described in a directory, or only remembers that it should."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context = SimpleNamespace(worker="w1")
        self.starts = True
        self.asked: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_program(self, directory: Path) -> None:
        """As the agent's."""
        self.asked.append(directory)
        if self.starts:
            self.begin(directory)

    def begin(self, directory: Path) -> subprocess.Popen[bytes]:
        """One process that wants to be the program."""
        script = f"import sys; sys.path.insert(0, {str(AGENT.parent)!r}); import agent; "
        script += f"from pathlib import Path; agent.become_program(Path({str(directory)!r}))"
        self._processes.append(subprocess.Popen([sys.executable, "-I", "-c", script]))
        return self._processes[-1]

    def daemon(self, script: str = "echo began >> log; exec sleep 60") -> Daemon:
        """Of a shell script in the directory."""
        return Daemon(cast(Agent, self), OrderedService("daemon", self._shell(script), {}))

    def command(self, script: str) -> Command:
        """Likewise."""
        return Command(cast(Agent, self), "command", self._shell(script), {})

    def log(self) -> str:
        """What the scripts wrote."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Kill and bury all."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _shell(self, script: str) -> list[str]:
        return ["/bin/sh", "-c", f"cd {self.directory}; {script}"]


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Starter]:
    made = Starter(tmp_path)
    yield made
    made.end()


# --- services


def test_of_many_processes_one_becomes_the_service(starter: Starter) -> None:
    starter.starts = False
    starter.daemon().look()
    rivals = [starter.begin(starter.asked[0]) for _ in range(12)]
    soon(lambda: sum(rival.poll() is None for rival in rivals) == 1)
    assert [rival.wait() for rival in rivals if rival.poll() is not None] == [0] * 11
    soon(starter.log)
    assert starter.log() == "began\n"


def test_a_service_that_was_asked_for_is_given_time(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    starter.starts = False
    daemon = starter.daemon()
    assert daemon.look()
    now += 29
    assert not daemon.look()
    assert len(starter.asked) == 1
    now += 2
    assert not daemon.look(), "it counts as ended, and is asked for after a pause"
    now += 1.1
    assert daemon.look()
    assert len(starter.asked) == 2


def test_pauses_grow_until_a_service_runs_well(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    daemon = starter.daemon("exec sleep 60")

    def pause(*, runs: float) -> float:
        """Seconds between its end and its next start."""
        nonlocal now
        before = len(starter.asked)
        while not daemon.process():
            time.sleep(0.01)
        daemon.look()
        now += runs
        daemon.look()
        daemon.signal(9)
        while daemon.process():
            time.sleep(0.01)
        daemon.look()
        ended = now
        while len(starter.asked) == before:
            now += 0.05
            daemon.look()
        return now - ended

    daemon.look()
    for most in (1, 2, 4, 8):
        assert most / 2 - 0.01 <= pause(runs=1) <= most + 0.06
    assert pause(runs=61) <= 1.06


def test_what_was_barred_never_begins(starter: Starter) -> None:
    starter.starts = False
    daemon = starter.daemon()
    daemon.look()
    daemon.bar()
    assert starter.begin(starter.asked[0]).wait() == 0
    assert (starter.log(), daemon.process()) == ("", 0)


def test_a_claim_of_a_machine_that_booted_anew_is_void(starter: Starter) -> None:
    daemon = starter.daemon()
    daemon.look()
    soon(daemon.process)
    path = starter.asked[0] / "process.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert daemon.process() == 0


# --- commands


async def test_a_command_that_works_says_nothing(starter: Starter) -> None:
    assert await starter.command("echo done >> log").run(10) == ""
    assert await starter.command("echo again >> log").run(10) == ""
    assert starter.log() == "done\nagain\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo a; echo b >&2; exit 7", "exited with 7; its last words: a | b"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("kill -9 $PPID; sleep 60", "it was killed"),
    ],
)
async def test_how_a_command_failed(starter: Starter, script: str, words: str) -> None:
    assert await starter.command(script).run(10) == words


async def test_only_the_end_of_what_it_said_is_told(starter: Starter) -> None:
    told = await starter.command("seq 1000; exit 1").run(10)
    assert told == "exited with 1; its last words: 996 | 997 | 998 | 999 | 1000"


async def test_a_command_that_hangs_is_ended_with_its_children(starter: Starter) -> None:
    assert await starter.command("sleep 61 & echo $! >> log; wait").run(1.5) == "it did not end within 1.5 s"
    soon(lambda: not lives(int(starter.log())))


async def test_a_command_may_leave_a_daemon_behind(starter: Starter) -> None:
    assert await starter.command("setsid sleep 3 & echo $! >> log").run(10) == ""
    assert lives(int(starter.log()))


async def test_a_command_that_is_given_up_is_ended(starter: Starter) -> None:
    running = asyncio.ensure_future(starter.command("echo $$ >> log; sleep 61").run(10))
    while not starter.log():  # noqa: ASYNC110  another process writes it
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.wait({running})
    soon(lambda: not lives(int(starter.log())))


async def test_a_command_that_nobody_starts_does_not_last_for_ever(starter: Starter) -> None:
    starter.starts = False
    assert await starter.command("true").run(0.2) == "no process could be started for it"
    assert starter.begin(starter.asked[0]).wait() == 0, "late, it does not begin"
    assert not (starter.asked[0] / "result.json").exists()
    starter.starts = True
    assert await starter.command("true").run(10) == "", "what barred the first does not bar the next"


def test_our_own_claim_is_no_program(starter: Starter) -> None:
    daemon = starter.daemon()
    (starter.directory / "batch/service-daemon").mkdir(parents=True)
    assert claim(starter.directory / "batch/service-daemon/process.json")
    assert daemon.process() == 0
    daemon.signal(15)  # or it would end us

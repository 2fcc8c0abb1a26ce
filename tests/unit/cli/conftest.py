"""A service that answers what a test says, and the command line as a user meets it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from gridtide.cli import command
from gridtide.cli.main import app
from gridtide.store.ports import Json
from tests.unit.cli.fake_service import FakeService, serving


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Json:
        """The one JSON document on stdout; fails when there is anything else."""
        value: Json = json.loads(self.stdout)
        return value

    @property
    def documents(self) -> list[Json]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self) -> str:
        """The one line on stderr; fails when there are more."""
        (line,) = self.stderr.splitlines()
        return line


Run = Callable[..., Ran]


@pytest.fixture
def service() -> Iterator[FakeService]:
    """Nothing is answered until a test says what."""
    with serving() as started:
        yield started


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests, an empty directory, and no real waiting."""
    for name in ("GRIDTIDE_URL", "GRIDTIDE_TOKEN", "GRIDTIDE_TOKEN_FILE", "GRIDTIDE_SITE", "GRIDTIDE_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)


@dataclass
class HandClock:
    """Time that passes only by sleeping."""

    at: float = 1_700_000_000.0
    interrupt_after: int | None = None
    """So many sleeps, then Ctrl-C."""
    slept: int = 0
    really: float = 0.0
    """Seconds that each sleep takes in fact: for tests that wait for a real process."""

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept += 1
        time.sleep(self.really)
        if self.interrupt_after is not None and self.slept >= self.interrupt_after:
            raise KeyboardInterrupt


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """The clock of every command of this test."""
    made = HandClock()
    real = command.Session
    monkeypatch.setattr(command, "Session", lambda output, where: real(output, where, now=made.now, sleep=made.sleep))
    return made


@pytest.fixture
def run(clock: HandClock) -> Run:
    """Call the command line."""

    def call(*arguments: str, answer: str | None = None) -> Ran:
        result = CliRunner().invoke(app, list(arguments), input=answer, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def ask(run: Run, service: FakeService) -> Run:
    """Call a command that speaks to the fake service."""

    def call(*arguments: str, answer: str | None = None) -> Ran:
        return run(*arguments, "--url", service.url, answer=answer)

    return call


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for ``gridtide.runtime``."""
    module = ModuleType("gridtide.runtime")
    monkeypatch.setitem(sys.modules, "gridtide.runtime", module)
    return module


def lines(text: str) -> Sequence[str]:
    """Without blank ones and trailing blanks."""
    return [line.rstrip() for line in text.splitlines() if line.strip()]

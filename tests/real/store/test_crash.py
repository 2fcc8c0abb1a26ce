"""What was acknowledged is there after a kill at any instant, and nothing is there by half."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import time
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from gridtide.model.workers import WorkerState
from gridtide.store.opening import open_store
from tests.real.store import committing

KILLS = 20


def _first_line(report: int) -> bytes:
    ready, _, _ = select.select([report], [], [], 30)
    assert ready, "the child committed nothing"
    return os.read(report, 1 << 20)


def _rest(report: int) -> bytes:
    read = b""
    while piece := os.read(report, 1 << 20):
        read += piece
    return read


def _run_and_kill(url: str, begin: int, delay: float) -> list[int]:
    """Let a child commit, kill it, and return the numbers that it was told are committed."""
    report, write = os.pipe()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.real.store.committing"])
    child: ForkServerProcess = context.Process(target=_child, args=(url, context.reducer.DupFd(write), begin))  # type: ignore[attr-defined]
    child.start()
    os.close(write)
    said = _first_line(report)
    time.sleep(delay)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    said += _rest(report)
    os.close(report)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()
    # A last number without its line end was not written whole.
    return [int(line) for line in said[: said.rfind(b"\n") + 1].split()]


def _child(url: str, write: object, begin: int) -> None:
    committing.run(url, write.detach(), begin)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_killed_at_random_instants(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "store.db"
    url = f"sqlite:///{file}" if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    chance = random.Random(os.urandom(8))
    acknowledged: set[int] = set()
    for kill in range(KILLS):
        acknowledged.update(_run_and_kill(url, kill * 100_000, chance.uniform(0, 0.05)))
    database, store = await open_store(url)
    workers = await store.workers()
    stored = {int(worker.id.removeprefix("grid-")) for worker in workers}
    events = Counter(recorded.event.subject for recorded in await store.events(limit=10_000_000))
    if kind == "sqlite":

        def check(connection: Connection) -> object:
            return connection.execute(text("PRAGMA integrity_check")).scalar()

        assert await database.read(check) == "ok"
    await store.close()
    assert len(acknowledged) >= KILLS
    assert acknowledged <= stored
    # At most the one commit that was under way at each kill was made without an answer.
    assert len(stored - acknowledged) <= KILLS
    # Every commit is there whole: the worker in its second state, and its three events.
    assert {worker.state for worker in workers} == {WorkerState.LAUNCHING}
    assert events == {worker.id: 3 for worker in workers}

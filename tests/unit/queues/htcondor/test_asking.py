"""The asking process: started when needed, killed when late, never in the way of others."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gridtide.queues.htcondor.asking import Asker
from gridtide.queues.htcondor.errors import PoolUnreachable


@pytest.fixture
def silent() -> Iterator[int]:
    """A port on loopback where connections are taken and nothing is ever said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
async def asker(tmp_path: Path, silent: int) -> AsyncIterator[Asker]:
    path = tmp_path / "config"
    path.write_text(f"COLLECTOR_HOST = 127.0.0.1:{silent}\nLOG = {tmp_path}\nENABLE_IPV6 = False\n")
    made = Asker(path, "queue pool")
    yield made
    await made.close()


def running(asker: Asker) -> int:
    """How many calls are under way."""
    assert asker._process is not None
    process = asker._process.pid
    return len(Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split())


async def one_runs(asker: Asker) -> None:
    for _ in range(500):
        if asker._process is not None and running(asker) == 1:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no call is under way")


async def none_left(asker: Asker) -> bool:
    for _ in range(100):
        if not running(asker):
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_call_that_hangs_ends_at_its_deadline_and_others_go_on(asker: Asker) -> None:
    await asker.call("judge", 30.0, jobs=[], machines=[])
    began = time.monotonic()
    late = asyncio.create_task(asker.call("overview", 1.0, names=None))
    assert await asker.call("judge", 30.0, jobs=[], machines=[]) == []
    assert time.monotonic() - began < 1.0
    await one_runs(asker)
    with pytest.raises(PoolUnreachable, match="no answer within 1 s"):
        await late
    assert await none_left(asker)


async def test_a_cancelled_call_is_killed(asker: Asker) -> None:
    await asker.call("judge", 30.0, jobs=[], machines=[])
    late = asyncio.create_task(asker.call("overview", 60.0, names=None))
    await one_runs(asker)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert await none_left(asker)


async def test_a_process_that_died_is_started_again(asker: Asker) -> None:
    await asker.call("judge", 30.0, jobs=[], machines=[])
    assert asker._process is not None
    first = asker._process.pid
    os.killpg(first, signal.SIGKILL)
    for _ in range(3):
        try:
            await asker.call("judge", 30.0, jobs=[], machines=[])
            break
        except PoolUnreachable:
            continue
    assert asker._process.pid != first


async def test_a_call_that_the_process_does_not_survive_is_an_error(asker: Asker) -> None:
    late = asyncio.create_task(asker.call("overview", 60.0, names=None))
    await one_runs(asker)
    assert asker._process is not None
    os.killpg(asker._process.pid, signal.SIGKILL)
    with pytest.raises(PoolUnreachable, match="died"):
        await late


async def test_nothing_is_left_when_it_is_closed(asker: Asker) -> None:
    late = asyncio.create_task(asker.call("overview", 60.0, names=None))
    await one_runs(asker)
    assert asker._process is not None
    group = asker._process.pid
    await asker.close()
    with pytest.raises(PoolUnreachable):
        await late
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("processes are left")


async def test_a_question_that_does_not_exist_is_an_error_and_no_more(asker: Asker) -> None:
    with pytest.raises(PoolUnreachable, match="KeyError"):
        await asker.call("nonsense", 30.0)
    assert await asker.call("judge", 30.0, jobs=[], machines=[]) == []

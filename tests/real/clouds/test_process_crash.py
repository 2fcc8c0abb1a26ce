"""The controller is killed at any instant while it makes and ends machines: nothing is doubled, lost or harmed.

Most instants are drawn from the time that a round takes here and now. The others are looked for, so that what must be
met is met however fast the machine is: the controller is stopped, looked at, and killed in just that situation.
"""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridtide.clouds.process import ProcessCloud
from gridtide.model.ids import MachineId
from gridtide.model.machines import MachineState
from tests.real.clouds.machines import (
    SITE,
    TREE,
    eventually,
    firsts,
    inside,
    listed,
    make_cloud,
    make_tree_cloud,
    processes,
    request,
    settled,
)
from tests.real.images import tree_store

WORKERS = [f"grid-{number}" for number in range(8)]
KILLS = {None: 50, TREE: 20}
"""By image: a machine without one, and one with a root of its own."""

NURSERY = """
import asyncio, os, sys
from pathlib import Path
from tests.real.clouds.machines import make_cloud, make_tree_cloud, request

async def controller(directory, image, workers, parent):
    cloud = make_tree_cloud(directory) if image else make_cloud(directory)
    while os.getppid() == parent:
        await cloud.launch([request(worker, image=image) for worker in workers])
        await cloud.terminate(workers[::2])
        await cloud.launch([request(worker, image=image) for worker in workers])
        await cloud.terminate(workers)
        print("round", flush=True)

nursery = os.getpid()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asyncio.run(controller(Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3:], nursery))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""
"""Imports once, then forks a controller per line, so that the kills fall into its work and not into its imports."""


@pytest.fixture(params=[None, TREE], ids=["plain", "tree"])
def image(request: pytest.FixtureRequest) -> str | None:
    chosen: str | None = request.param
    if chosen is not None:
        tree_store(chosen)  # built here, not by a process that is killed
    return chosen


@pytest.fixture
def nursery(tmp_path: Path, image: str | None) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", NURSERY, str(tmp_path / "machines"), image or "", *WORKERS]
    repository = Path(__file__).parents[3]
    environment = {**os.environ, "GRIDTIDE_TEST_SITE": SITE}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=repository, env=environment, text=True, stdin=pipe, stdout=pipe) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """Its environment and command line look like a machine's."""
    environment = {"GRIDTIDE_MACHINE": f"{SITE}/grid-1x", "NOTE": f"GRIDTIDE_MACHINE={SITE}/grid-1"}
    command = [sys.executable, "-c", "import time; time.sleep(600)", f"GRIDTIDE_MACHINE={SITE}/grid-1"]
    with subprocess.Popen(command, env=environment) as started:
        try:
            yield started
        finally:
            started.kill()


async def test_many_kills(
    tmp_path: Path, image: str | None, nursery: "subprocess.Popen[str]", bystander: "subprocess.Popen[bytes]"
) -> None:
    instants = random.Random(20261121)
    directory = tmp_path / "machines"
    situations = itertools.cycle(situations_in(directory).items())
    length = await _time_a_round(nursery)
    await _end_all(image, directory)
    for number in range(KILLS[image]):
        controller = await _start(nursery)
        met = None
        if number % 4 == 0:
            met, holds = next(situations)
            await _stop_when(controller, holds)
        else:
            await asyncio.sleep(instants.uniform(0.0, length))
        await _kill(nursery, controller)
        states = await _judge_what_was_left(image, _heir(image, directory))
        assert met is None or met in states
        await _repeat_launches(image, directory, _heir(image, directory))
        await _end_all(image, directory)
        assert bystander.poll() is None


def situations_in(directory: Path) -> dict[MachineState, Callable[[], bool]]:
    """What a controller leaves to its heir that is killed while this holds."""
    return {
        MachineState.ENDING: lambda: any((directory / ".ending").glob("*")),
        MachineState.RUNNING: lambda: any((directory / worker / "started").exists() for worker in WORKERS),
    }


def first_processes(image: str | None, worker: str) -> list[int]:
    """Of a machine without a tree all processes, of one with it those that are the first of a name space."""
    return processes(worker) if image is None else firsts(worker)


async def sleeping(image: str | None, worker: str) -> None:
    """Once the machine does what it is for."""
    if image is None:
        await settled(worker)
    else:
        await eventually(lambda: inside(worker) == ["sleep"])


def _heir(image: str | None, directory: Path) -> ProcessCloud:
    return make_cloud(directory) if image is None else make_tree_cloud(directory)


async def _start(nursery: "subprocess.Popen[str]") -> int:
    """A controller; its process number."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    return int(await asyncio.to_thread(nursery.stdout.readline))


async def _kill(nursery: "subprocess.Popen[str]", controller: int) -> None:
    assert nursery.stdout is not None
    os.kill(controller, signal.SIGKILL)
    while (line := await asyncio.to_thread(nursery.stdout.readline)) == "round\n":
        pass
    assert line == "dead\n"


async def _time_a_round(nursery: "subprocess.Popen[str]") -> float:
    """Seconds that a controller takes for one round, on this machine at this time."""
    assert nursery.stdout is not None
    began = time.monotonic()
    controller = await _start(nursery)
    assert await asyncio.to_thread(nursery.stdout.readline) == "round\n"
    length = time.monotonic() - began
    await _kill(nursery, controller)
    return length


async def _stop_when(controller: int, holds: Callable[[], bool]) -> None:
    """Stop it in a situation: only one that is still there once all of its threads stand still counts."""
    for _ in range(1000):
        await eventually(holds, seconds=60.0)
        os.kill(controller, signal.SIGSTOP)
        await eventually(lambda: _stands_still(controller), seconds=60.0)
        if holds():
            return
        os.kill(controller, signal.SIGCONT)
    raise AssertionError("the situation never lasts")


def _stands_still(process: int) -> bool:
    states = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{process}/task").glob("*/stat")]
    return set(states) == {"T"}


async def _end_all(image: str | None, directory: Path) -> None:
    """As the next controller would: nothing stays behind."""
    heir = _heir(image, directory)
    assert await heir.terminate([MachineId(worker) for worker in WORKERS]) == dict.fromkeys(WORKERS)
    assert processes(*WORKERS) == [], "no orphan"
    assert await heir.machines() == ()
    assert list((directory / ".ending").iterdir()) == []


async def _judge_what_was_left(image: str | None, heir: ProcessCloud) -> set[MachineState]:
    """Every process belongs to a listed machine, none has two; returns the states that were seen."""
    found = await listed(heir)
    for worker in WORKERS:
        count = len(first_processes(image, worker))
        assert count <= 1, f"{worker} has {count} processes"
        assert count == 0 or MachineId(worker) in found, f"{worker} runs and is not listed"
        if worker in found and found[MachineId(worker)].state is MachineState.RUNNING:
            await sleeping(image, worker)
    assert {str(machine.worker) for machine in found.values()} == {str(name) for name in found}, (
        "each carries its worker as its tag"
    )
    return {machine.state for machine in found.values()}


async def _repeat_launches(image: str | None, directory: Path, heir: ProcessCloud) -> None:
    """As the next controller would: each worker has one machine with one process, which was started once."""
    ending = {name for name, machine in (await listed(heir)).items() if machine.state is MachineState.ENDING}
    wanted = [worker for worker in WORKERS if worker not in ending]
    answers = await heir.launch([request(worker, image=image) for worker in wanted])
    assert answers == {worker: worker for worker in wanted}
    assert list((directory / ".making").iterdir()) == [], "no half-made machine stays, nor its context"
    for worker in wanted:
        await sleeping(image, worker)
        place = directory / worker if image is None else directory / worker / "upper/var/lib/gridtide"
        starts = (place / "starts").read_text().split()
        assert len(starts) == 1, f"{worker} was started more than once"

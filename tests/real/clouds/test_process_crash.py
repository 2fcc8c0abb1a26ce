"""The controller is killed at random instants while it makes and ends machines: nothing is doubled, lost or harmed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
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
    states: set[MachineState] = set()
    for _ in range(KILLS[image]):
        await _run_and_kill(nursery, instants.uniform(0.0, 0.12 if image is None else 0.4))
        heir = make_cloud(directory) if image is None else make_tree_cloud(directory)
        states |= await _judge_what_was_left(image, heir)
        await _repeat_launches(image, directory, heir)
        assert await heir.terminate([MachineId(worker) for worker in WORKERS]) == dict.fromkeys(WORKERS)
        assert processes(*WORKERS) == [], "no orphan"
        assert await heir.machines() == ()
        assert list((directory / ".ending").iterdir()) == []
        assert bystander.poll() is None
    assert MachineState.RUNNING in states
    assert MachineState.ENDING in states, "some kills fell into the ending of machines"


def first_processes(image: str | None, worker: str) -> list[int]:
    """Of a machine without a tree all processes, of one with it those that are the first of a name space."""
    return processes(worker) if image is None else firsts(worker)


async def sleeping(image: str | None, worker: str) -> None:
    """Once the machine does what it is for."""
    if image is None:
        await settled(worker)
    else:
        await eventually(lambda: inside(worker) == ["sleep"])


async def _run_and_kill(nursery: "subprocess.Popen[str]", after: float) -> None:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    controller = int(await asyncio.to_thread(nursery.stdout.readline))
    await asyncio.sleep(after)
    os.kill(controller, signal.SIGKILL)
    assert await asyncio.to_thread(nursery.stdout.readline) == "dead\n"


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

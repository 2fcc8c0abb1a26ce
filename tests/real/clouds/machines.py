"""What the tests of the process cloud share: a small cloud whose machines run a shell, and looks at the processes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from gridtide import locks
from gridtide.clouds import process_table
from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.process_network import Bridge
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from gridtide.model.machines import Machine
from gridtide.model.resources import Resources, Shape
from tests.real.images import tree_store

SHAPES = (Shape(ShapeName("small"), Resources(1, 512, 1024)), Shape(ShapeName("large"), Resources(4, 2048, 4096)))

SITE = os.environ.get("GRIDTIDE_TEST_SITE") or f"torino-{os.getpid()}"
"""Processes are found by site and worker on the whole host: tests that run side by side must not meet."""

NOTE_AND_SLEEP = "echo $$ >> starts; echo hello; exec sleep 600"
"""Notes each start in a file, then is one process that does nothing."""


def make_cloud(directory: Path, script: str = NOTE_AND_SLEEP, *, site: str = SITE) -> ProcessCloud:
    """A cloud whose machines run a shell script instead of the agent."""
    return ProcessCloud(CloudName("local"), site, directory, SHAPES, command=("/bin/sh", "-c", script))


TREE = "batch-tree"
"""The image of machines with a root of their own."""


def make_tree_cloud(
    directory: Path, script: str | None = NOTE_AND_SLEEP, *, site: str = SITE, bridge: Bridge | None = None
) -> ProcessCloud:
    """A cloud whose machines have :data:`TREE`, and run a shell script in it; None: the agent."""
    command = None if script is None else ("/bin/sh", "-c", script)
    images = tree_store(TREE)
    return ProcessCloud(CloudName("local"), site, directory, SHAPES, command=command, images=images, bridge=bridge)


def request(worker: str, user_data: bytes = b"{}", image: str | None = None) -> LaunchRequest:
    """For one small machine."""
    return LaunchRequest(WorkerId(worker), GroupName("grid"), SHAPES[0].name, None, image, user_data)


def inside(worker: str) -> list[str]:
    """The names of the processes that a machine with a tree has, process 1 left out."""
    names = []
    for number in processes(worker):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            names.append(Path(f"/proc/{number}/comm").read_text().strip())
    return [name for name in names if name != "busybox"]


def first_of(worker: str) -> int:
    """Process 1 of a machine with a tree, as the host numbers it."""
    (number,) = firsts(worker)
    return number


def firsts(worker: str) -> list[int]:
    """All processes of the machine that are the first of a name space: never two."""
    found = []
    for number in processes(worker):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            numbers = Path(f"/proc/{number}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()
            if numbers[-1:] == ["1"]:
                found.append(number)
    return found


def processes(*workers: str) -> list[int]:
    """Numbers of all processes of these machines."""
    found = process_table.marked([f"{SITE}/{worker}" for worker in workers])
    return [number for numbers in found.values() for number in numbers]


async def settled(*workers: str) -> list[int]:
    """The one process of each machine, once its shell has become ``sleep``.

    For an instant in between, as in every ``exec``, the kernel shows no environment of it.
    """

    def all_sleep() -> bool:
        return [Path(f"/proc/{number}/comm").read_text() for number in processes(*workers)] == ["sleep\n"] * len(
            workers
        )

    await eventually(all_sleep)
    return processes(*workers)


def has_ended(home: Path) -> bool:
    """Whether the first process of the machine in this directory is dead."""
    with open(home / "machine.lock") as lock:
        return not locks.is_locked(lock.fileno())


async def kill_machine(home: Path) -> None:
    """Kill its process, as an accident would."""
    for process in await settled(home.name):
        os.kill(process, signal.SIGKILL)
    await eventually(lambda: has_ended(home))


async def listed(cloud: ProcessCloud) -> dict[MachineId, Machine]:
    """What the cloud lists, by id."""
    return {machine.id: machine for machine in await cloud.machines()}


async def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what another process does. AssertionError when it does not come."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")

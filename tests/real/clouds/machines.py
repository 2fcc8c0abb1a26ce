"""What the tests of the process cloud share: a small cloud whose machines run a shell, and looks at the processes."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from gridtide.clouds import process_table
from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from gridtide.model.machines import Machine
from gridtide.model.resources import Resources, Shape

SHAPES = (Shape(ShapeName("small"), Resources(1, 512, 1024)), Shape(ShapeName("large"), Resources(4, 2048, 4096)))

SITE = os.environ.get("GRIDTIDE_TEST_SITE") or f"torino-{os.getpid()}"
"""Processes are found by site and worker on the whole host: tests that run side by side must not meet."""

NOTE_AND_SLEEP = "echo $$ >> starts; echo hello; exec sleep 600"
"""Notes each start in a file, then is one process that does nothing."""


def make_cloud(directory: Path, script: str = NOTE_AND_SLEEP, *, site: str = SITE) -> ProcessCloud:
    """A cloud whose machines run a shell script instead of the agent."""
    return ProcessCloud(CloudName("local"), site, directory, SHAPES, command=("/bin/sh", "-c", script))


def request(worker: str, user_data: bytes = b"{}") -> LaunchRequest:
    """For one small machine."""
    return LaunchRequest(WorkerId(worker), GroupName("grid"), SHAPES[0].name, None, None, user_data)


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
        return not process_table.is_locked(lock.fileno())


async def kill_machine(home: Path) -> None:
    """Kill its process, as an accident would."""
    for process in await settled(home.name):
        os.kill(process, signal.SIGKILL)
    await eventually(lambda: has_ended(home))


async def listed(cloud: ProcessCloud) -> dict[MachineId, Machine]:
    """What the cloud lists, by id."""
    return {machine.id: machine for machine in await cloud.machines()}


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what another process does. AssertionError when it does not come."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to be")

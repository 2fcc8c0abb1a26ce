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


def kill_machine(worker: str) -> None:
    """Kill every process of a machine, as an accident would."""
    for process in processes(worker):
        os.kill(process, signal.SIGKILL)


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

"""What the boundary of clouds whose machines are processes of this host can be made to do: beyond it is the kernel."""

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gridtide.clouds.local import LocalCloud
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId
from gridtide.testing.cloud_bench import Boundary, CloudBench, Fault, Step

_NO_NETWORK: Final = "no network lies between the driver and its machines"
_REASONS: Final = {
    Fault.THROTTLE: "the kernel has no rate",
    Fault.UNREACHABLE: _NO_NETWORK,
    Fault.SILENCE: _NO_NETWORK,
    Fault.DROP: f"{_NO_NETWORK}; the driver killed at any instant is test_process_crash.py's",
    Fault.CUT: _NO_NETWORK,
    Fault.CREDENTIALS: "there are none: machines are directories and processes of this user",
    Fault.CAPACITY: "a full disk is full for all machines of a call; test_process.py has it",
    Fault.QUOTA: "the host knows no tenants: the quota is the site file's, and the planner keeps it",
    Fault.LAG: "machines are listed from the file system: nothing lags",
}


@dataclass
class LocalBoundary(Boundary):
    """``directory``: of the machines. It can hold the lock that every launch takes first."""

    directory: Path
    _held: list[int] = field(default_factory=list)

    def cannot(self, fault: Fault, step: Step | None) -> str:
        if fault is Fault.HANG:
            return "" if step is Step.LAUNCH else "a listing waits for nothing"
        return _REASONS[fault]

    async def begin(self, fault: Fault, step: Step | None, times: int | None) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self.directory / ".making.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._held.append(handle)

    async def end(self) -> None:
        while self._held:
            os.close(self._held.pop())


@asynccontextmanager
async def local_bench(
    directory: Path,
    make: Callable[[str | None], LocalCloud],
    break_machine: Callable[[MachineId], Awaitable[None]],
    *,
    shape: ShapeName,
    image: str | None,
    many: int,
) -> AsyncIterator[CloudBench]:
    """``make``: a driver of a site of this name, in this directory; None: of the tests' own."""
    cloud, neighbour = make(None), make("neighbour")

    async def add_foreign() -> MachineId:
        request = LaunchRequest(WorkerId("theirs"), GroupName("g"), shape, None, image, b"{}")
        await neighbour.launch([request])
        return MachineId("theirs")

    faults = LocalBoundary(directory)
    try:
        yield CloudBench(cloud, lambda: make(None), add_foreign, break_machine, image=image, many=many, faults=faults)
    finally:
        await faults.end()
        for each in (cloud, neighbour):
            await each.terminate([machine.id for machine in await each.machines() if machine.worker is not None])

"""What the conformance suite needs beside a driver: its levers, and faults at the boundary to its cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol
from unittest import SkipTest

from gridtide.clouds.protocol import Cloud, LaunchRequest
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState
from gridtide.testing.expect import expect, expect_type

SECRET: Final = "gtj_conformance.do-not-show-this"  # noqa: S105 - it opens nothing
"""Stands in every user data that the suite sends. A driver never shows it."""


class NotHere(SkipTest):
    """The case has no meaning on this cloud, with the reason. The table shows it as n/a."""


class Fault(StrEnum):
    """What can happen between a driver and its cloud: in the network or the process beyond, never in the driver."""

    THROTTLE = "throttle"
    """Refused for its rate; nothing is done."""
    UNREACHABLE = "unreachable"
    """No connection; nothing is done."""
    HANG = "hang"
    """No answer, and nothing is done (or not before the fault ends)."""
    SILENCE = "silence"
    """It is done, and no answer ever comes."""
    DROP = "drop"
    """It is done, and the connection ends in place of the answer."""
    CUT = "cut"
    """It is done, and the connection ends in the middle of the answer."""
    CREDENTIALS = "credentials"
    """Refused, for the credentials are not good any more."""
    CAPACITY = "capacity"
    """Refused for want of room."""
    QUOTA = "quota"
    """Refused, for the tenant's quota is used up."""
    LAG = "lag"
    """What was listed before is listed again."""


class Step(StrEnum):
    """Calls of the driver's protocol; each may be several calls of the cloud."""

    LIST = "list"
    LAUNCH = "launch"
    TERMINATE = "terminate"


class Boundary(Protocol):
    """Makes faults. ``HttpBoundary`` of :mod:`gridtide.testing.http_boundary` is one for every cloud behind HTTP."""

    def cannot(self, fault: Fault, step: Step | None) -> str:
        """Why it cannot happen to this step (None: to all calls) of this cloud; empty when it can."""
        ...

    async def begin(self, fault: Fault, step: Step | None, times: int | None) -> None:
        """Let it happen, so often (None: until :meth:`end`)."""
        ...

    async def end(self) -> None:
        """Everything works again."""
        ...


@dataclass(frozen=True)
class CloudBench:
    """A driver under test, and the levers that the suite needs beside it."""

    cloud: Cloud
    again: Callable[[], Cloud]
    """Another driver object for the same tenant, as after a crash of the controller. It knows nothing."""
    add_foreign: Callable[[], Awaitable[MachineId]]
    """Start a machine of the same tenant that is not ours: without our tag, or with another site's."""
    break_machine: Callable[[MachineId], Awaitable[None]]
    """Make a machine useless from outside (power it off, let it fail)."""
    zone: Zone | None = None
    image: str | None = None
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Let so many of the cloud's seconds pass."""
    patience: float = 30.0
    """Seconds within which a machine that was ended must be out of the listing, or ENDING or GONE in it."""
    many: int = 60
    """How many machines the test of complete listings makes: more than one page of the cloud's listing."""
    faults: Boundary | None = None
    """What the boundary between driver and cloud can be made to do. None: nothing, and the table says so."""
    give_up: float = 1.0
    """Seconds after which the suite gives up a call that hangs, as the controller does at its deadline."""

    async def struck(self, fault: Fault, step: Step | None = None, times: int | None = None) -> None:
        """Let it happen to so many calls of this step (None: of all) from now on. NotHere when this cloud cannot."""
        if self.faults is None:
            raise NotHere("this bench makes no faults")
        if reason := self.faults.cannot(fault, step):
            raise NotHere(reason)
        await self.faults.begin(fault, step, times)

    async def healed(self) -> None:
        """No more faults."""
        if self.faults is not None:
            await self.faults.end()

    async def request(self, worker: str, shape: ShapeName | None = None) -> LaunchRequest:
        """A good request, for the first shape unless told otherwise."""
        user_data = f'{{"version": 1, "worker": "{worker}", "join_token": "{SECRET}"}}'.encode()
        chosen = shape or (await self.cloud.shapes())[0].name
        return LaunchRequest(WorkerId(worker), GroupName("conform"), chosen, self.zone, self.image, user_data)

    async def launch(self, *workers: str) -> list[MachineId]:
        """Make good machines; AssertionError when one is refused."""
        answers = await self.cloud.launch([await self.request(worker) for worker in workers])
        return [expect_type(answers[WorkerId(worker)], str, f"{worker} is launched") for worker in workers]  # type: ignore[misc]

    async def listed(self, cloud: Cloud | None = None) -> dict[MachineId, Machine]:
        """What is listed once listings have settled, by id, without what has ended."""
        await self.wait(self.cloud.settle)
        machines = await (cloud or self.cloud).machines()
        expect(len({each.id for each in machines}) == len(machines), "each machine is listed once", machines)
        return {each.id: each for each in machines if each.state is not MachineState.GONE}

    async def until_ended(self, machine: MachineId) -> None:
        """AssertionError when it is not ended within ``patience``."""
        step = max(self.patience / 60, 0.05)
        for _ in range(60):
            found = (await self.listed()).get(machine)
            if found is None:
                return
            await self.wait(step)
        raise AssertionError(f"machine {machine} is still listed {self.patience} s after it was ended: {found}")

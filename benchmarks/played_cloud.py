"""A cloud whose machines are played: a plug-in for ``gridtide up`` that asks the player of :mod:`played_machines`.

One question is one line of JSON over a socket of this host, one line comes back. It is as thin as a driver can be, for
what is measured is the controller.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from gridtide.clouds.protocol import Cloud, Finding, LaunchRequest
from gridtide.errors import CloudError, CloudUnavailable
from gridtide.model.contexts import ContextFormat
from gridtide.model.ids import CloudName, MachineId, ShapeName, WorkerId
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.resources import Resources, Shape
from gridtide.site.base import RESTART, Text
from gridtide.site.drivers import CloudSettings

SLOT: Final = Shape(ShapeName("slot"), Resources(1, 1024, 10_240))
LONGEST_LINE: Final = 2**24
"""Bytes: a listing of all machines, or the contexts of a bulk launch."""


PAGE: Final = 1000
"""Machines that are read without giving way to others: clouds answer in pages of so many (EC2, OpenStack)."""
_STATES: Final = {state.value: state for state in MachineState}


class PlayedCloud:
    """Implements :class:`~gridtide.clouds.protocol.Cloud`."""

    settle = 0.0

    def __init__(self, name: CloudName, socket: str) -> None:
        self.name = name
        self._socket = socket

    async def shapes(self) -> tuple[Shape, ...]:
        """There is but one."""
        return (SLOT,)

    async def machines(self) -> Machines:
        """All that were not terminated."""
        listed = await self._ask({"what": "machines"})
        found: list[Machine] = []
        for first in range(0, len(listed), PAGE):
            await asyncio.sleep(0)
            found += [
                Machine(MachineId(name), WorkerId(name), _STATES[state], SLOT.resources)
                for name, state in listed[first : first + PAGE]
            ]
        return tuple(found)

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """In bulk. A machine is called like its worker."""
        contexts = {request.worker: request.user_data.decode() for request in requests}
        await self._ask({"what": "launch", "contexts": contexts})
        return {request.worker: MachineId(request.worker) for request in requests}

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """In bulk."""
        await self._ask({"what": "terminate", "machines": list(machines)})
        return dict.fromkeys(machines)

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Nothing can be wrong with it."""
        return ()

    async def close(self) -> None:
        """Nothing is held."""

    async def _ask(self, question: Mapping[str, object]) -> Any:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=LONGEST_LINE)
        except OSError as error:
            raise CloudUnavailable(f"the player does not answer: {error.strerror}", where=self.name) from error
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            return json.loads(await reader.readline())
        finally:
            writer.close()


class PlayedSettings(CloudSettings):
    """``[clouds.NAME]`` with ``type = "played"``."""

    context_format: ClassVar[ContextFormat] = ContextFormat.AGENT

    type: Literal["played"] = Field(description="Played machines.", json_schema_extra=RESTART)
    socket: Text = Field(description="Where the player listens.", json_schema_extra=RESTART)

    def driver(self, name: CloudName, site: str) -> Cloud:
        """One player serves one site."""
        return PlayedCloud(name, self.socket)


def install(place: Path) -> None:
    """Make ``place`` a directory of installed packages from which the plug-in is found."""
    about = place / "played-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: played\nVersion: 1\n")
    (about / "entry_points.txt").write_text(
        f"[gridtide.cloud_settings]\nplayed = {PlayedSettings.__module__}:{PlayedSettings.__name__}\n"
    )

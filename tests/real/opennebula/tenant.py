"""A user of an OpenNebula for tests, and what tests do there beside the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.clouds.opennebula_api import Access
from gridtide.clouds.opennebula_machine import OpennebulaSettings, TemplateChoice
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from tests.real.opennebula.documents import Machine
from tests.real.opennebula.server import PASSWORD, THEIRS, OpenNebula

T = TypeVar("T")

IMAGE: Final = "worker-2026.11"
SETTINGS: Final = OpennebulaSettings(
    templates=(TemplateChoice(ShapeName("small"), "small", 0.1), TemplateChoice(ShapeName("large"), "large", 0.4)),
    page=5,
)


@dataclass(frozen=True)
class Tenant:
    """Of one test. ``address``: of the server itself, not of a proxy before it."""

    nebula: OpenNebula
    address: str
    directory: Path

    def credentials(self, text: str = f"gridtide:{PASSWORD}\n", mode: int = 0o600) -> Path:
        """A file."""
        file = self.directory / "one_auth"
        file.write_text(text)
        file.chmod(mode)
        return file

    def access(self, endpoint: str | None = None, timeout: float = 10.0) -> Access:
        """For a driver. An endpoint without a path gets the usual one."""
        address = self.address if endpoint is None else f"{endpoint.removesuffix('/RPC2')}/RPC2"
        return Access(address, self.credentials(), timeout=timeout)

    def cloud(
        self,
        settings: OpennebulaSettings = SETTINGS,
        *,
        site: str = "torino",
        name: str = "private",
        endpoint: str | None = None,
        timeout: float = 10.0,
    ) -> OpennebulaCloud:
        """A driver object that knows nothing yet."""
        return OpennebulaCloud(CloudName(name), site, self.access(endpoint, timeout), settings, settle=0.0)

    def living(self) -> list[Machine]:
        """All machines that are not done, as OpenNebula itself has them."""
        return self.nebula.living()

    def ids(self) -> list[MachineId]:
        """Theirs."""
        return [MachineId(str(each.id)) for each in self.living()]

    async def add_foreign(self) -> MachineId:
        """A machine of somebody else of the group, with our tags: anybody may write them."""
        tags = [("GRIDTIDE_SITE", "torino/private"), ("GRIDTIDE_WORKER", "conform-one")]
        rows = [("CPU", "1"), ("VCPU", "1"), ("MEMORY", "1024"), *tags]
        number = self.nebula.make(THEIRS, "theirs", [*rows])
        self.nebula.living()
        return MachineId(str(number))

    async def admin(self, do: Callable[[OpenNebula], T]) -> T:
        """In a thread."""
        return await asyncio.to_thread(do, self.nebula)


def request(
    worker: str, user_data: bytes = b"#cloud-config\n", shape: str = "small", image: str | None = IMAGE
) -> LaunchRequest:
    """For one machine."""
    return LaunchRequest(WorkerId(worker), GroupName("grid"), ShapeName(shape), None, image, user_data)


def having(**more: object) -> OpennebulaSettings:
    """The settings of the tests, changed."""
    return replace(SETTINGS, **more)  # type: ignore[arg-type]

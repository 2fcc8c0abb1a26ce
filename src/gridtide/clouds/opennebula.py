"""Machines of an OpenNebula cloud.

OpenNebula has no client token, so a launch first lists: a worker whose machine is there gets that one. Machines are
made on hold, looked at, and released: a second one of a worker is ended before it ever ran. Everything goes through
XML-RPC, one call per machine to make, to release and to end it. docs/explanation/opennebula-cloud.md tells why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from gridtide.clouds import opennebula_check
from gridtide.clouds.flights import join, under_way
from gridtide.clouds.opennebula_api import Access, OpennebulaApi
from gridtide.clouds.opennebula_catalogue import Catalogue
from gridtide.clouds.opennebula_errors import WrongState
from gridtide.clouds.opennebula_launching import Launcher, by_worker
from gridtide.clouds.opennebula_listing import Listing, Seen
from gridtide.clouds.opennebula_machine import ID, OpennebulaSettings
from gridtide.clouds.opennebula_quota import as_quota
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import CloudError, LaunchRejected
from gridtide.model.ids import CloudName, MachineId, WorkerId, Zone
from gridtide.model.machines import Machines, MachineState, Quota
from gridtide.model.resources import Shape

LAUNCH_PATIENCE: Final = 55.0
READ_PATIENCE: Final = 18.0
"""Seconds that a bulk launch, and any other call of the protocol, may take with all repetitions. Longer than the
controller's own deadlines (60 s and 20 s unless the site file changes them), and it would not wait for the answer."""

_RELEASE_PATIENCE: Final = 5.0
"""Seconds for what a listing finds on hold. It must not cost the listing its deadline."""
_LEAVING: Final = frozenset({MachineState.ENDING, MachineState.GONE})


class OpennebulaCloud:
    """One user. ``site`` and ``name`` together are the machines' tag."""

    def __init__(
        self, name: CloudName, site: str, access: Access, settings: OpennebulaSettings, *, settle: float = 60.0
    ) -> None:
        self.name = name
        self.settle = settle
        self.settings = settings
        self.access = access
        self.tag = f"{site}/{name}"
        self.where = f"{name} ({urlsplit(access.endpoint).netloc})"
        self.api = OpennebulaApi(self.where, access, settings.calls)
        self.catalogue = Catalogue(self.api, settings)
        self.listing = Listing(self.api, self.catalogue, settings, self.tag)
        self._launcher = Launcher(self.api, self.catalogue, self.listing, settings, self.tag)
        self._identity = f"{access.endpoint}/{self.tag}"
        self._ends = asyncio.Semaphore(settings.calls)

    # --- the protocol

    def zones(self) -> tuple[Zone, ...]:
        """Clusters in order of preference; empty: where OpenNebula puts machines."""
        return self.settings.clusters

    async def quota(self) -> Quota:
        """What the user may have, by its own limits and its group's. Raises CloudError."""
        return as_quota(await self.catalogue.limits(self._until(READ_PATIENCE)))

    async def shapes(self) -> tuple[Shape, ...]:
        """The site file's, without those whose template is not there."""
        templates = await self.catalogue.templates(self._until(READ_PATIENCE), anew=True)
        return tuple(each.shape for each in templates.values())

    async def machines(self) -> Machines:
        """All of the user, and those of its group that it may see. Releases what a launch has left on hold."""
        until = self._until(READ_PATIENCE)
        seen = await self.listing.all(until)
        await self._release(seen, until)
        return tuple(each.machine for each in seen)

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """Two listings, a look at the quotas, and two calls per worker.

        A launch of a worker that is under way is joined, also when whoever called for it did not wait for the end.
        """
        wanted = {request.worker: request for request in requests}
        until = self._until(LAUNCH_PATIENCE)
        return await join(self._identity, wanted, lambda new: self._launcher.launch(new, until))

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """A look at each, and a call for each of ours; some at once."""
        until = self._until(READ_PATIENCE)
        unique = dict.fromkeys(machines)
        answers = await asyncio.gather(*(self._terminate(each, until) for each in unique))
        return dict(zip(unique, answers, strict=True))

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Credentials and how long they last, version, quotas, templates, networks, clusters and images."""
        return await opennebula_check.findings(self, images, self._until(READ_PATIENCE))

    async def close(self) -> None:
        """Machines live on."""
        self.api.close()

    # ---

    async def _release(self, seen: Sequence[Seen], until: float) -> None:
        """What nobody is launching now is what a lost answer, or a crash, has left."""
        launching = under_way(self._identity)
        left = [
            machines
            for worker, machines in by_worker(seen).items()
            if worker not in launching and any(each.held for each in machines)
        ]
        until = min(until, self._until(_RELEASE_PATIENCE))
        await asyncio.gather(*(self._launcher.settle(machines, until) for machines in left))

    async def _terminate(self, machine: MachineId, until: float) -> CloudError | None:
        if not ID.fullmatch(machine):
            return None
        try:
            async with self._ends:
                await self._end(machine, until)
        except CloudError as error:
            return error
        return None

    async def _end(self, machine: MachineId, until: float) -> None:
        if not await self._is_there(machine, until):
            return
        try:
            await self.api.call("vm.action", "terminate-hard", int(machine), read=_nothing, until=until)
        except MachineNotFound:
            pass
        except WrongState:  # an order before this one was taken, though not answered; or it cannot be ended now
            if await self._is_there(machine, until):
                raise

    async def _is_there(self, machine: MachineId, until: float) -> bool:
        """Whether it is still to be ended. Raises CloudError: LaunchRejected for what is not ours."""
        seen = await self.listing.one(machine, until)
        if seen is None or seen.machine.state in _LEAVING:
            return False
        if seen.machine.worker is None:
            what = f"machine {machine} has not the tag of this site, or is not of this user"
            raise LaunchRejected(what, where=self.where, remedy="end it yourself, if it shall end")
        return True

    def _until(self, patience: float) -> float:
        return asyncio.get_running_loop().time() + patience


def _nothing(answer: object) -> None:
    """Of an order: that it was taken."""

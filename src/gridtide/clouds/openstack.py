"""Machines of an OpenStack project.

Nova has no client token, so a launch first lists: a worker whose machine is there gets that one. A launch whose answer
was lost is looked for in the listing, and made again only when it is certain that Nova has done with it. One POST per
worker: name, tags and user-data (which holds a join token of its own) are equal for all servers of Nova's bulk create.
docs/explanation/openstack-cloud.md tells why, and counts the calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from gridtide.clouds import openstack_check
from gridtide.clouds.flights import join
from gridtide.clouds.openstack_api import Access, OpenstackApi, Service
from gridtide.clouds.openstack_catalogue import ID, Catalogue
from gridtide.clouds.openstack_errors import ODD, typed
from gridtide.clouds.openstack_faults import Faults
from gridtide.clouds.openstack_launching import Launcher
from gridtide.clouds.openstack_machine import Json, OpenstackSettings, fault, machine, quota, site_tag, volumes
from gridtide.clouds.openstack_pages import pages
from gridtide.clouds.openstack_volumes import Volumes
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import CloudError, CloudUnavailable, LaunchRejected
from gridtide.model.ids import CloudName, MachineId, WorkerId, Zone
from gridtide.model.machines import Machine, Machines, MachineState, Quota
from gridtide.model.resources import Resources, Shape

LAUNCH_PATIENCE: Final = 55.0
READ_PATIENCE: Final = 18.0
"""Seconds that a bulk launch, and any other call of the protocol, may take with all repetitions. Longer than the
controller's own deadlines (60 s and 20 s unless the site file changes them), and it would not wait for the answer."""

AGAIN: Final = 300.0
"""Seconds for which an end that Nova has accepted is not ordered again, unless a listing shows the machine alive.
Smaller: a Nova that is slow to delete gets a call for each look at it. Larger: one that forgot is reminded later."""

_NOTHING: Final = Resources()


class OpenstackCloud:
    """One project in one region. ``site`` and ``name`` together are the machines' tag."""

    def __init__(
        self, name: CloudName, site: str, access: Access, settings: OpenstackSettings, *, settle: float = 60.0
    ) -> None:
        self.name = name
        self.settle = settle
        self.settings = settings
        self.tag = site_tag(site, name)
        self.where = f"{name} ({access.profile or 'openstack'}{f' {access.region}' if access.region else ''})"
        self.api = OpenstackApi(self.where, access, settings.calls)
        self.catalogue = Catalogue(self.api, settings)
        self._identity = f"{access.profile}/{access.region}/{access.project}/{self.tag}"
        self._launcher = Launcher(self.api, self.catalogue, settings, self.tag, listing=self._list, limits=self._limits)
        self._volumes = Volumes(self.api)
        self._faults = Faults(self.api)
        self._workers: dict[MachineId, WorkerId | None] = {}
        """As of the last listing and the launches since: what is known of servers whose cell is down."""
        self._ends = asyncio.Semaphore(settings.calls)
        self._accepted: dict[MachineId, float] = {}
        """When Nova accepted an end (loop time)."""

    # --- the protocol

    def zones(self) -> tuple[Zone, ...]:
        """Where machines may be, in order of preference; empty: where Nova puts them."""
        return self.settings.zones

    async def quota(self) -> Quota:
        """What the project may use, as the cloud says. Raises CloudError."""
        return await self._limits(self._until(READ_PATIENCE))

    async def shapes(self) -> tuple[Shape, ...]:
        """The flavours; those of the site file that the cloud does not have are left out."""
        flavors = await self.catalogue.flavors(self._until(READ_PATIENCE), anew=True)
        return tuple(each.shape for each in flavors.values() if each.shape.resources.cores)

    async def machines(self) -> Machines:
        """All of the project in the region, a page at a time."""
        return await self._list(self._until(READ_PATIENCE))

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        """A listing, a look at the quota, and a call per worker.

        A launch of a worker that is under way is joined, also when whoever called for it did not wait for the end.
        """
        wanted = {request.worker: request for request in requests}
        until = self._until(LAUNCH_PATIENCE)
        answers = await join(self._identity, wanted, lambda new: self._launcher.launch(new, until))
        self._workers.update({each: worker for worker, each in answers.items() if isinstance(each, str)})
        return answers

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        """A call per machine, some at once."""
        until = self._until(READ_PATIENCE)
        unique = dict.fromkeys(machines)
        answers = await asyncio.gather(*(self._terminate(each, until) for each in unique))
        return dict(zip(unique, answers, strict=True))

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        """Credentials and how long they last, versions, flavours, images, and all else that the site file names."""
        return await openstack_check.findings(self, images, self._until(READ_PATIENCE))

    async def credentials(self) -> Finding:
        """How they are and when they end. Raises CloudError."""
        until = self._until(READ_PATIENCE)
        return await openstack_check.credentials(self, await self.api.log_in(until), until)

    async def console(self, machine: MachineId, *, most: int) -> bytes | None:
        """What Nova keeps of a machine that exists."""
        if not ID.fullmatch(machine):
            return None
        body: dict[str, object] = {"os-getConsoleOutput": {}}
        path = f"/servers/{machine}/action"
        try:
            answer = await self.api.call(Service.COMPUTE, "POST", path, self._until(READ_PATIENCE), body=body)
        except MachineNotFound:
            return None
        return str(answer.get("output", "")).encode()[-most:] if most else b""

    async def close(self) -> None:
        """Machines live on."""
        self.api.close()

    # --- listing

    async def _list(self, until: float) -> Machines:
        began = asyncio.get_running_loop().time()
        rows = await self._pages(until)
        try:
            found = tuple(self._machine(row) for row in rows)
            attached = {each.id: volumes(row) for each, row in zip(found, rows, strict=True)}
            said = {each.id: fault(row) for each, row in zip(found, rows, strict=True)}
        except ODD as error:
            raise typed(error, self.where) from error
        self._workers = {each.id: each.worker for each in found}
        alive = {each.id for each in found if each.state not in (MachineState.ENDING, MachineState.GONE)}
        self._accepted = {
            each: at for each, at in self._accepted.items() if at + AGAIN > began and (at > began or each not in alive)
        }
        await self._volumes.listed(found, attached, until)
        return await self._faults.explained(found, said, until)

    async def _pages(self, until: float) -> list[Json]:
        try:
            return await pages(self.api, "/servers/detail?", "servers", self.settings.page, until)
        except (LaunchRejected, MachineNotFound):
            # The last server of a page was deleted before the next page was asked for.
            return await pages(self.api, "/servers/detail?", "servers", self.settings.page, until)

    def _machine(self, row: Json) -> Machine:
        if "metadata" in row:
            return machine(row, self.tag)
        # Of a cell that is down Nova tells no more than ids (since microversion 2.69).
        known = MachineId(str(row["id"]))
        if known not in self._workers:
            what = "some servers cannot be told apart now: a cell of Nova is down"
            raise CloudUnavailable(what, where=self.where)
        return Machine(known, self._workers[known], MachineState.UNKNOWN, _NOTHING, None, "its cell of Nova is down")

    async def _limits(self, until: float) -> Quota:
        answer = await self.api.call(Service.COMPUTE, "GET", "/limits", until)
        try:
            return quota(answer["limits"]["absolute"])
        except ODD as error:
            raise typed(error, self.where) from error

    # --- ending

    async def _terminate(self, machine: MachineId, until: float) -> CloudError | None:
        now = asyncio.get_running_loop().time()
        if not ID.fullmatch(machine) or (machine in self._accepted and self._accepted[machine] + AGAIN > now):
            return None
        try:
            async with self._ends:
                await self.api.call(Service.COMPUTE, "DELETE", f"/servers/{machine}", until)
            self._accepted[machine] = asyncio.get_running_loop().time()
        except MachineNotFound:
            pass
        except CloudError as error:
            return error
        self._volumes.ended(machine)
        return None

    def _until(self, patience: float) -> float:
        return asyncio.get_running_loop().time() + patience

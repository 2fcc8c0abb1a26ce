"""Volumes that machines booted from, and that Nova should have deleted with them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_errors import ODD, typed
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import CloudError
from gridtide.model.ids import MachineId
from gridtide.model.machines import Machines

log = structlog.get_logger("gridtide.clouds")

_PATIENCE: Final = 5.0
"""Seconds for a look at the volumes. It must not cost a listing of machines its deadline."""
_REMOVABLE: Final = frozenset({"available", "error", "error_deleting"})
"""States in which nothing uses a volume (block storage API reference, "Volume statuses"). Cinder deletes the first two;
for the third it takes an administrator, so that it is reported again and again."""


class Volumes:
    """Of machines that this driver object has ended. Only such as Nova itself was told to delete with their machine.

    What a controller that died in between had ended is not known: Nova's own deletion must do there.
    """

    def __init__(self, api: OpenstackApi) -> None:
        self._api = api
        self._of: dict[MachineId, tuple[str, ...]] = {}
        self._ended: set[MachineId] = set()
        self._orphans: set[str] = set()

    def ended(self, machine: MachineId) -> None:
        """Its end was ordered."""
        if machine in self._of:
            self._ended.add(machine)

    async def listed(self, machines: Machines, attached: Mapping[MachineId, tuple[str, ...]], until: float) -> None:
        """Remember what belongs to our machines, and remove what those that are gone left behind. Never raises."""
        self._of.update({each.id: attached[each.id] for each in machines if each.worker and attached[each.id]})
        listed = {each.id for each in machines}
        for machine in self._ended - listed:
            self._orphans.update(self._of[machine])
        self._ended &= listed
        self._of = {machine: found for machine, found in self._of.items() if machine in listed}
        if self._orphans:
            try:
                await self._remove(min(until, asyncio.get_running_loop().time() + _PATIENCE))
            except CloudError as error:
                log.warning("volumes of ended machines not looked at", error=str(error))

    async def _remove(self, until: float) -> None:
        """One listing, and a call for each that is still there and that nothing uses."""
        answer = await self._api.call(Service.VOLUME, "GET", "/volumes/detail?limit=1000", until)
        try:
            states = {str(each["id"]): str(each["status"]) for each in answer["volumes"]}
        except ODD as error:
            raise typed(error, self._api.where) from error
        self._orphans &= states.keys()
        for volume in sorted(self._orphans):
            if states[volume] not in _REMOVABLE:
                continue
            try:
                await self._api.call(Service.VOLUME, "DELETE", f"/volumes/{volume}", until)
            except MachineNotFound:
                self._orphans.discard(volume)
            except CloudError as error:
                log.warning("volume of an ended machine not removed", volume=volume, error=str(error))

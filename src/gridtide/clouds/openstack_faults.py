"""Nova's words on a server that failed: its listings lack those of servers that found no host, so each is asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_machine import fault
from gridtide.errors import CloudError
from gridtide.model.ids import MachineId
from gridtide.model.machines import Machine, Machines, MachineState

_ASKED: Final = 2
"""How often one is asked for. Nova writes the words a moment after the state; an administrator's ERROR has none."""
_AT_ONCE: Final = 20
"""How many are asked for with one listing; the others with the next ones."""
_PATIENCE: Final = 5.0
"""Seconds for all of them. They must not cost the listing its deadline."""


@dataclass(slots=True)
class _Known:
    asked: int = 0
    words: str = ""


class Faults:
    """Remembers what it was told, so that a machine that stays broken costs no more calls."""

    def __init__(self, api: OpenstackApi) -> None:
        self._api = api
        self._known: dict[MachineId, _Known] = {}

    async def explained(self, machines: Machines, said: Mapping[MachineId, str], until: float) -> Machines:
        """The same, with Nova's words on ours that are broken. ``said``: those of the listing. Never raises."""
        broken = [each.id for each in machines if each.worker is not None and each.state is MachineState.BROKEN]
        self._known = {name: self._known.get(name, _Known()) for name in broken if not said.get(name)}
        silent = [name for name, known in self._known.items() if not known.words and known.asked < _ASKED]
        if silent:
            until = min(until, asyncio.get_running_loop().time() + _PATIENCE)
            await asyncio.gather(*(self._ask(name, until) for name in silent[:_AT_ONCE]))
        return tuple(self._with_words(each) for each in machines)

    async def _ask(self, name: MachineId, until: float) -> None:
        known = self._known[name]
        known.asked += 1
        # That it is broken is known; why can wait.
        with contextlib.suppress(CloudError, KeyError, TypeError, AttributeError):
            known.words = fault((await self._api.call(Service.COMPUTE, "GET", f"/servers/{name}", until))["server"])

    def _with_words(self, machine: Machine) -> Machine:
        known = self._known.get(machine.id)
        return replace(machine, message=known.words) if known is not None and known.words else machine

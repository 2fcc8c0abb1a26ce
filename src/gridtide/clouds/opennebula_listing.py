"""Listings of machines, whole or an error: a machine that a listing leaves out would be believed gone.

A page has what changes. Whose a machine is never changes, and stands in attributes that pages leave out: those are
asked for once, of many machines in a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gridtide.clouds.opennebula_api import OpennebulaApi
from gridtide.clouds.opennebula_catalogue import Catalogue
from gridtide.clouds.opennebula_machine import Listed, OpennebulaSettings, Tags, listed, machine, tags, whole
from gridtide.clouds.refusals import MachineNotFound, NotAuthorized
from gridtide.model.ids import MachineId
from gridtide.model.machines import Machine, MachineState

_MINE_AND_MY_GROUPS: Final = -1
_NOT_DONE: Final = -1
_AT_ONCE: Final = 100
"""Machines in one question for attributes: each comes with its user-data, which may have 120 kB."""
_NOBODY: Final = Tags()


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine, and whether it waits to be released."""

    machine: Machine
    held: bool


class Listing:
    """Of one user and its group."""

    def __init__(self, api: OpennebulaApi, catalogue: Catalogue, settings: OpennebulaSettings, tag: str) -> None:
        self._api = api
        self._catalogue = catalogue
        self._settings = settings
        self._tag = tag
        self._tags: dict[MachineId, Tags] = {}
        self._waiting: dict[MachineId, float] = {}
        """Since when machines wait for a host (loop time)."""
        self._full: dict[tuple[str, str], tuple[float, str]] = {}
        """Of a shape in a cluster: until when none is to be made, and why."""

    def learn(self, machine: MachineId, tags: Tags) -> None:
        """Of a machine that was just made."""
        self._tags[machine] = tags

    def full(self, shape: str, zone: str) -> str | None:
        """Why a machine of this shape would wait in this cluster in vain, as one has lately."""
        until, why = self._full.get((shape, zone), (0.0, ""))
        return why if asyncio.get_running_loop().time() < until else None

    async def all(self, until: float) -> tuple[Seen, ...]:
        """What is not gone. Raises CloudError."""
        me = await self._catalogue.me(until)
        began = asyncio.get_running_loop().time()
        rows = await self._pages(until)
        # Another listing may be under way: what this one goes by is its own until it is whole.
        known = await self._tags_of(rows, until)
        waiting = {name: self._waiting.get(name, began) for name, each in rows.items() if each.pending}
        self._tags, self._waiting = known, waiting
        return tuple(
            self._seen(each, known[each.id], began - waiting.get(each.id, began), me) for each in rows.values()
        )

    async def one(self, machine: MachineId, until: float) -> Seen | None:
        """None: it is gone. Raises CloudError."""
        try:
            each, its = await self._api.call("vm.info", int(machine), read=_with_tags, until=until)
        except MachineNotFound:
            return None
        return None if each.done else self._seen(each, its, 0.0, await self._catalogue.me(until))

    def _seen(self, each: Listed, its: Tags, waited: float, me: int) -> Seen:
        made = machine(each, its, self._tag, me)
        if made.worker is not None and waited > self._settings.placement:
            why = f"no host has taken {each.id} for {waited:.0f} s: {each.words or 'OpenNebula does not say why'}"
            made = replace(made, state=MachineState.BROKEN, message=why)
            again = asyncio.get_running_loop().time() + self._settings.placement
            self._full[its.shape, its.zone] = again, why
        return Seen(made, each.held)

    async def _pages(self, until: float) -> dict[MachineId, Listed]:
        """Pages go by offset. Where a machine ends while they are read, the next page begins too late: each begins
        with the last one of the page before, and where that is not in it, the listing is begun again."""
        size = self._settings.page
        while True:
            found: dict[MachineId, Listed] = {}
            last: MachineId | None = None
            start = 0
            while True:
                page = await self._api.call(
                    "vmpool.info", _MINE_AND_MY_GROUPS, start, -size, _NOT_DONE, read=_page, until=until
                )
                if last is not None and last not in {each.id for each in page}:
                    break
                found.update({each.id: each for each in page})
                if len(page) < size:
                    return found
                last = page[-1].id
                start += size - 1

    async def _tags_of(self, rows: Iterable[MachineId], until: float) -> dict[MachineId, Tags]:
        known = {name: self._tags[name] for name in rows if name in self._tags}
        names = sorted(set(rows) - known.keys(), key=int)
        for at in range(0, len(names), _AT_ONCE):
            asked = names[at : at + _AT_ONCE]
            found = await self._api.call("vmpool.infoset", ",".join(asked), True, read=_tags_of_all, until=until)
            for name in asked:
                known[name] = found[name] if name in found else await self._ask_one(name, until)
            # Also when this listing comes to nothing: the next one of a large cloud gets further.
            self._tags.update({name: known[name] for name in asked})
        return known

    async def _ask_one(self, name: MachineId, until: float) -> Tags:
        try:
            return (await self._api.call("vm.info", int(name), read=_with_tags, until=until))[1]
        except (MachineNotFound, NotAuthorized):
            return _NOBODY  # not our user's: that one may always be looked at


def _page(pool: Any) -> list[Listed]:
    return [listed(row) for row in pool.VM]


def _tags_of_all(pool: Any) -> Mapping[MachineId, Tags]:
    """Without those that came as in a page. Before 7.2 OpenNebula answers so when somebody else (its web pages do) asks
    for a set without all attributes at the same moment: a machine of ours would be taken for another's for good."""
    return {MachineId(str(int(row.ID))): tags(row) for row in pool.VM if whole(row)}


def _with_tags(row: Any) -> tuple[Listed, Tags]:
    return listed(row), tags(row)

"""Launching without a client token: look first, make once and on hold, look again, release one.

A machine on hold does not run. So a second one, whatever made it, is found by its tag and ended before it ever ran.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence

from gridtide.clouds.flights import Answers
from gridtide.clouds.making import Making
from gridtide.clouds.opennebula_api import OpennebulaApi
from gridtide.clouds.opennebula_catalogue import Catalogue
from gridtide.clouds.opennebula_errors import WrongState
from gridtide.clouds.opennebula_listing import Listing, Seen
from gridtide.clouds.opennebula_machine import (
    USER_DATA_LIMIT,
    OpennebulaSettings,
    Tags,
    Template,
    boot_disk,
    extra_template,
)
from gridtide.clouds.opennebula_quota import Room
from gridtide.clouds.protocol import LaunchRequest
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
)
from gridtide.model.ids import MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState

ByWorker = Mapping[WorkerId, Sequence[Seen]]


class Launcher:
    """One per driver."""

    def __init__(
        self, api: OpennebulaApi, catalogue: Catalogue, listing: Listing, settings: OpennebulaSettings, tag: str
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._listing = listing
        self._settings = settings
        self._tag = tag
        self._calls = asyncio.Semaphore(settings.calls)

    async def launch(self, requests: Mapping[WorkerId, LaunchRequest], until: float) -> Answers:
        """An answer for each."""
        try:
            seen = await self._look(until)
            kinds = await self._catalogue.templates(until)
            room = Room(await self._catalogue.limits(until))
        except CloudError as error:
            return dict.fromkeys(requests, error)
        answers: Answers = {}
        wanted: list[LaunchRequest] = []
        for worker, request in requests.items():
            if worker in seen:
                continue
            refusal = self._refusal(request, kinds) or room.take(kinds[request.shape])
            if refusal is None:
                wanted.append(request)
            else:
                answers[worker] = refusal
        if wanted:
            making = Making(
                prepare=lambda request: self._extra(request, kinds[request.shape], until),
                make=lambda request, extra: self._order(request, kinds[request.shape], extra, until),
                listed=lambda: self._listed(until),
                forget=self._catalogue.forget,
                calls=self._calls,
                until=until,
            )
            answers |= await making.all(wanted)
            with contextlib.suppress(CloudError):  # what was made is released with the next listing
                seen = await self._look(until)
        found = {worker: seen[worker] for worker in requests if worker in seen}
        settled = await asyncio.gather(*(self.settle(each, until) for each in found.values()))
        return answers | dict(zip(found, settled, strict=True))

    async def settle(self, seen: Sequence[Seen], until: float) -> MachineId | CloudError:
        """Let one of a worker's machines run, and none that was made beside it."""
        chosen = min(seen, key=_preference)
        doubles = [each for each in seen if each.held and each is not chosen]
        await asyncio.gather(*(self._end(each.machine.id, until) for each in doubles))
        if not chosen.held:
            return chosen.machine.id
        try:
            async with self._calls:
                await self._api.call("vm.action", "release", int(chosen.machine.id), read=_nothing, until=until)
        except (QuotaExceeded, LaunchRejected, AuthenticationFailed) as error:
            gone = await self._end(chosen.machine.id, until)
            return error if gone else CloudUnavailable(f"a machine is on hold: {error}", where=self._api.where)
        except CloudError:
            pass  # it was released before (WrongState); or it will be with the next listing
        return chosen.machine.id

    async def _end(self, machine: MachineId, until: float) -> bool:
        """One that never ran. Whether it is gone; where it is not, the controller finds it."""
        try:
            async with self._calls:
                await self._api.call("vm.action", "terminate-hard", int(machine), read=_nothing, until=until)
        except MachineNotFound:
            return True
        except CloudError:
            return False
        return True

    async def _look(self, until: float) -> ByWorker:
        return by_worker(await self._listing.all(until))

    def _refusal(self, request: LaunchRequest, kinds: Mapping[ShapeName, Template]) -> CloudError | None:
        where = self._api.where
        if request.shape not in kinds:
            remedy = f"there is: {', '.join(kinds) or 'none'}"
            return LaunchRejected(f"no template is there for {request.shape!r}", where=where, remedy=remedy)
        if len(request.user_data) > USER_DATA_LIMIT:
            what = f"its user-data has {len(request.user_data)} bytes, of which {USER_DATA_LIMIT} reach a machine"
            return LaunchRejected(what, where=where, remedy="let the machine fetch its context")
        if request.image is None and not boot_disk(kinds[request.shape].disks)[0]:
            what = f"group {request.group} names no image, and the template of {request.shape} has none"
            return LaunchRejected(what, where=where, remedy='add image = "NAME" to the group')
        full = self._listing.full(request.shape, self._zone(request) or "")
        return None if full is None else NoCapacity(full, where=where)

    def _zone(self, request: LaunchRequest) -> Zone | None:
        return request.zone or next(iter(self._settings.clusters), None)

    async def _extra(self, request: LaunchRequest, kind: Template, until: float) -> str:
        image = None if request.image is None else await self._catalogue.image(request.image, until)
        networks = await self._catalogue.networks(until)
        return extra_template(request, kind, image, networks, self._zone(request), self._tag)

    async def _order(self, request: LaunchRequest, kind: Template, extra: str, until: float) -> MachineId:
        """On hold."""
        try:
            made = await self._api.call(
                "template.instantiate", kind.id, request.worker, True, extra, False,
                read=_machine_id, until=until, again=False,
            )  # fmt: skip
        except WrongState as error:  # of the template: there is no machine yet
            raise LaunchRejected(error.what, where=error.where) from None
        self._listing.learn(made, Tags(self._tag, request.worker, request.shape, self._zone(request) or ""))
        return made

    async def _listed(self, until: float) -> Mapping[WorkerId, MachineId]:
        seen = await self._look(until)
        return {worker: min(machines, key=_preference).machine.id for worker, machines in seen.items()}


def by_worker(seen: Iterable[Seen]) -> dict[WorkerId, list[Seen]]:
    """Ours."""
    found: dict[WorkerId, list[Seen]] = {}
    for each in seen:
        if each.machine.worker is not None:
            found.setdefault(each.machine.worker, []).append(each)
    return found


def _preference(each: Seen) -> tuple[bool, bool, int]:
    """Of a worker's machines: one that was released already, one that is not ending, the first that was made."""
    ending = each.machine.state in (MachineState.ENDING, MachineState.GONE)
    return (each.held, ending, int(each.machine.id))


def _machine_id(answer: object) -> MachineId:
    if not isinstance(answer, int) or isinstance(answer, bool) or answer < 0:
        raise ValueError("not the number of a machine")
    return MachineId(str(answer))


def _nothing(answer: object) -> None:
    """Of an order: that it was taken."""

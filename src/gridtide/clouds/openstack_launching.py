"""Launching without a client token: look first, make once, look again for what was not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from gridtide.clouds.flights import Answers
from gridtide.clouds.making import Making
from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_catalogue import Catalogue
from gridtide.clouds.openstack_errors import typed
from gridtide.clouds.openstack_machine import USER_DATA_LIMIT, Flavor, Json, OpenstackSettings, Parts, launch_body
from gridtide.clouds.protocol import LaunchRequest
from gridtide.clouds.refusals import NotAuthorized
from gridtide.errors import (
    CloudError,
    LaunchRejected,
    QuotaExceeded,
)
from gridtide.model.ids import MachineId, ShapeName, WorkerId
from gridtide.model.machines import Machines, MachineState, Quota
from gridtide.model.resources import Resources, Shape


class Launcher:
    """One per driver. ``listing`` reads all machines of the project: it takes loop time, and raises CloudError."""

    def __init__(
        self,
        api: OpenstackApi,
        catalogue: Catalogue,
        settings: OpenstackSettings,
        tag: str,
        *,
        listing: Callable[[float], Awaitable[Machines]],
        limits: Callable[[float], Awaitable[Quota]],
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._settings = settings
        self._tag = tag
        self._listing = listing
        self._limits = limits
        self._calls = asyncio.Semaphore(settings.calls)
        self._reserved: dict[WorkerId, Resources] = {}
        """For launches under way, of all bulk calls."""

    async def launch(self, requests: Mapping[WorkerId, LaunchRequest], until: float) -> Answers:
        """An answer for each."""
        try:
            machines = await self._listing(until)
            flavors = await self._catalogue.flavors(until)
            room = Room(await self._limit(until), machines, self._reserved)
        except CloudError as error:
            return dict.fromkeys(requests, error)
        known = by_worker(machines)
        answers: Answers = {}
        wanted: list[LaunchRequest] = []
        for worker, request in requests.items():
            answer = known.get(worker) or self._refusal(request, flavors) or room.take(flavors[request.shape].shape)
            if answer is None:
                self._reserved[worker] = flavors[request.shape].shape.resources
                wanted.append(request)
            else:
                answers[worker] = answer
        try:
            making = Making(
                prepare=lambda request: self._body(request, flavors[request.shape], until),
                make=lambda _, body: self._order(body, until),
                listed=lambda: self._listed(until),
                forget=self._catalogue.forget,
                calls=self._calls,
                until=until,
            )
            return answers | await making.all(wanted)
        finally:
            for request in wanted:
                self._reserved.pop(request.worker, None)

    async def _limit(self, until: float) -> Quota:
        try:
            return await self._limits(until)
        except (LaunchRejected, NotAuthorized):  # Nova will say so itself
            return Quota()

    def _refusal(self, request: LaunchRequest, flavors: Mapping[ShapeName, Flavor]) -> CloudError | None:
        where = self._api.where
        if request.shape not in flavors:
            remedy = f"there is: {', '.join(flavors) or 'none'}"
            return LaunchRejected(f"no flavour is called {request.shape!r}", where=where, remedy=remedy)
        if len(request.user_data) > USER_DATA_LIMIT:
            what = f"its user-data has {len(request.user_data)} bytes, Nova takes {USER_DATA_LIMIT}"
            return LaunchRejected(what, where=where, remedy="let the machine fetch its context")
        if request.image is None:
            what = f"group {request.group} names no image"
            return LaunchRejected(what, where=where, remedy='add image = "NAME" to the group')
        return None

    async def _body(self, request: LaunchRequest, flavor: Flavor, until: float) -> Json:
        parts = Parts(
            flavor,
            await self._catalogue.image(request.image or "", until),
            await self._catalogue.networks(until),
            await self._catalogue.server_group(until),
        )
        return launch_body(request, parts, self._settings, self._tag)

    async def _order(self, body: Json, until: float) -> MachineId:
        answer = await self._api.call(Service.COMPUTE, "POST", "/servers", until, body=body)
        try:
            return MachineId(str(answer["server"]["id"]))
        except (KeyError, TypeError) as error:
            raise typed(error, self._api.where) from error

    async def _listed(self, until: float) -> Mapping[WorkerId, MachineId]:
        return by_worker(await self._listing(until))


class Room:
    """What the project's quota leaves. Nova looks at it late: launches side by side are accepted, and fail later."""

    def __init__(self, limit: Quota, machines: Machines, reserved: Mapping[WorkerId, Resources]) -> None:
        listed = {each.worker for each in machines}
        # Nova counts machines in any state, broken and stopped ones too.
        counted = [each.resources for each in machines if each.state is not MachineState.GONE]
        counted += [resources for worker, resources in reserved.items() if worker not in listed]
        self._limit = limit
        self._used = [len(counted), sum(each.cores for each in counted), sum(each.memory for each in counted)]

    def take(self, shape: Shape) -> QuotaExceeded | None:
        """Count one machine more; or say which quota does not hold it."""
        needs = (1, shape.resources.cores, shape.resources.memory)
        limits = (self._limit.machines, self._limit.cores, self._limit.memory)
        names = ("machines", "cores", "memory")
        for name, limit, used, need in zip(names, limits, self._used, needs, strict=True):
            if limit is not None and used + need > limit:
                unit = "MiB of memory" if name == "memory" else name
                what = f"{used} of the project's {limit} {unit} are used, {shape.name} needs {need}"
                return QuotaExceeded(what, scope=name, remedy="ask for a higher quota, or set quota of the cloud")
        self._used = [used + need for used, need in zip(self._used, needs, strict=True)]
        return None


def by_worker(machines: Machines) -> dict[WorkerId, MachineId]:
    """The machine of each worker; where one has several, one that is not ending."""
    order = {MachineState.GONE: 0, MachineState.ENDING: 1}
    ranked = sorted(machines, key=lambda each: (order.get(each.state, 2), each.id))
    return {each.worker: each.id for each in ranked if each.worker is not None}

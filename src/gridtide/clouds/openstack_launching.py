"""Launching without a client token: look first, make once, look again for what was not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from gridtide.clouds.flights import Answers
from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_catalogue import Catalogue
from gridtide.clouds.openstack_errors import typed
from gridtide.clouds.openstack_machine import USER_DATA_LIMIT, Flavor, OpenstackSettings, Parts, launch_body
from gridtide.clouds.protocol import LaunchRequest
from gridtide.clouds.refusals import Answered, NotAuthorized
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
)
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machines, MachineState, Quota
from gridtide.model.resources import Resources, Shape

Refused = dict[tuple[GroupName, ShapeName, Zone | None], CloudError]
"""What Nova said no to in a bulk launch. The rest of a kind is not asked for: 200 equal answers tell no more."""

LOOKS: Final = (0.3, 1.0, 2.0, 4.0)
"""Seconds before each look for machines whose launch was not answered. What Nova has accepted is listed at once; what
it is still at work on may come later than all of them, and is found by the controller."""
SURE: Final = 2
"""Looks that must miss a machine whose launch was answered with 500 or 503 before it is asked for again."""
ATTEMPTS: Final = 4
"""To launch one worker. More would be a storm on a Nova that answers 500."""


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
            return answers | await self._make(wanted, flavors, until)
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

    async def _make(
        self, wanted: Sequence[LaunchRequest], flavors: Mapping[ShapeName, Flavor], until: float
    ) -> Answers:
        answers: Answers = {}
        refused: Refused = {}
        for _ in range(ATTEMPTS):
            made = await asyncio.gather(*(self._create(each, flavors[each.shape], refused, until) for each in wanted))
            answers.update(zip((each.worker for each in wanted), made, strict=True))
            wanted = await self._look_again(wanted, answers, until)
            if not wanted:
                break
        return answers

    async def _create(
        self, request: LaunchRequest, flavor: Flavor, refused: Refused, until: float
    ) -> MachineId | CloudError:
        kind = (request.group, request.shape, request.zone)
        try:
            parts = Parts(
                flavor,
                await self._catalogue.image(request.image or "", until),
                await self._catalogue.networks(until),
                await self._catalogue.server_group(until),
            )
        except CloudUnavailable as error:
            return NotAsked(error)
        except CloudError as error:
            return error
        body = launch_body(request, parts, self._settings, self._tag)
        try:
            async with self._calls:
                if kind in refused:
                    return refused[kind]
                answer = await self._api.call(Service.COMPUTE, "POST", "/servers", until, body=body)
            return MachineId(str(answer["server"]["id"]))
        except (ImageNotFound, LaunchRejected) as error:
            self._catalogue.forget()  # the id of something that was replaced under its name, perhaps
            refused[kind] = error
            return error
        except (QuotaExceeded, NoCapacity, AuthenticationFailed) as error:
            refused[kind] = error
            return error
        except CloudError as error:
            return error
        except (KeyError, TypeError) as error:
            return typed(error, self._api.where)

    async def _look_again(
        self, asked: Sequence[LaunchRequest], answers: Answers, until: float
    ) -> Sequence[LaunchRequest]:
        """Find what was made without an answer. Returns what was not made, and may be asked for again.

        Where Nova has answered 500 or 503 the call is over; where it has not, it may still be at work on it: that one
        is never asked for again here.
        """
        looks = 0
        for pause in LOOKS:
            lost = [each.worker for each in asked if isinstance(answers[each.worker], CloudUnavailable)]
            over = all(isinstance(answers[each], Answered) for each in lost)
            if not lost or (over and looks >= SURE) or asyncio.get_running_loop().time() + pause >= until:
                break
            await asyncio.sleep(pause)
            try:
                known = by_worker(await self._listing(until))
            except CloudError:
                continue
            looks += 1
            answers.update({worker: known[worker] for worker in lost if worker in known})
        return [each for each in asked if looks >= SURE and isinstance(answers[each.worker], Answered)]


class NotAsked(Answered):
    """What the launch refers to could not be looked up: Nova was not asked."""

    def __init__(self, error: CloudUnavailable) -> None:
        super().__init__(error.what, where=error.where, remedy=error.remedy)


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

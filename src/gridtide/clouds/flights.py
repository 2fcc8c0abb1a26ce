"""Launches under way, of all driver objects of the process: an order that overtakes the one before it joins it.

For clouds without a client token, which would make a machine for each. Between processes the controller's lease does
the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import CloudError, CloudUnavailable
from gridtide.model.ids import MachineId, WorkerId

Answers = dict[WorkerId, MachineId | CloudError]
Start = Callable[[Mapping[WorkerId, LaunchRequest]], Awaitable[Answers]]

_Flights = dict[tuple[str, WorkerId], asyncio.Future[MachineId | CloudError]]
_UNDER_WAY: WeakKeyDictionary[asyncio.AbstractEventLoop, _Flights] = WeakKeyDictionary()
"""By cloud and worker."""
_TASKS: Final[set[asyncio.Task[None]]] = set()


async def join(
    cloud: str,
    requests: Mapping[WorkerId, LaunchRequest],
    start: Start,
) -> Answers:
    """Start what is not under way, and wait for all of it. It goes on when the caller is cancelled."""
    loop = asyncio.get_running_loop()
    flights = _UNDER_WAY.setdefault(loop, {})
    new = {worker: request for worker, request in requests.items() if (cloud, worker) not in flights}
    flights.update({(cloud, worker): loop.create_future() for worker in new})
    waited = [flights[cloud, worker] for worker in requests]
    if new:
        task = loop.create_task(_fly(cloud, flights, new, start))
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)
    answers = await asyncio.gather(*(asyncio.shield(each) for each in waited))
    return dict(zip(requests, answers, strict=True))


def under_way(cloud: str) -> frozenset[WorkerId]:
    """Workers that are being launched now."""
    flights = _UNDER_WAY.get(asyncio.get_running_loop(), {})
    return frozenset(worker for where, worker in flights if where == cloud)


async def _fly(
    cloud: str,
    flights: _Flights,
    new: Mapping[WorkerId, LaunchRequest],
    start: Start,
) -> None:
    answers: Answers = {}
    try:
        answers = await start(new)
    finally:
        for worker in new:
            flight = flights.pop((cloud, worker))
            flight.set_result(answers.get(worker) or CloudUnavailable("the launch was broken off", where=cloud))

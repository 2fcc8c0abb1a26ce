"""Making machines where a cloud has no client token: one for each worker, and what was not answered is looked for.

Two equal calls make two machines there. So a call that was not answered is never simply repeated: the listing shows
whether it made one. Only where the cloud has answered with an error of its own the call is over, and what no look
shows after that is asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from gridtide.clouds.flights import Answers
from gridtide.clouds.protocol import LaunchRequest
from gridtide.clouds.refusals import Answered
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

T = TypeVar("T")
Kind = tuple[GroupName, ShapeName, Zone | None]

LOOKS: Final = (0.3, 1.0, 2.0, 4.0)
"""Seconds before each look for machines whose launch was not answered. What a cloud is still at work on may come later
than all of them, and is found by the controller."""
SURE: Final = 2
"""Looks that must miss a machine whose launch was answered with an error before it is asked for again."""
ATTEMPTS: Final = 4
"""To launch one worker. More would be a storm on a cloud in trouble."""


@dataclass(frozen=True, slots=True)
class Making(Generic[T]):
    """One bulk launch, in terms of what its cloud does."""

    prepare: Callable[[LaunchRequest], Awaitable[T]]
    """Look up what a launch refers to. Raises CloudError, and nothing was asked for then."""
    make: Callable[[LaunchRequest, T], Awaitable[MachineId]]
    """One call. Raises CloudError: CloudUnavailable when its outcome is not known, Answered when it is over."""
    listed: Callable[[], Awaitable[Mapping[WorkerId, MachineId]]]
    """The machine of each worker that has one. Raises CloudError."""
    forget: Callable[[], None]
    """Look up anew what launches refer to: something was replaced under its name, perhaps."""
    calls: asyncio.Semaphore
    until: float
    """Loop time."""
    _refused: dict[Kind, CloudError] = field(default_factory=dict, init=False)
    """What the cloud said no to. The rest of a kind is not asked for: 200 equal answers tell no more."""

    async def all(self, wanted: Sequence[LaunchRequest]) -> Answers:
        """An answer for each."""
        answers: Answers = {}
        for _ in range(ATTEMPTS):
            made = await asyncio.gather(*(self._one(each) for each in wanted))
            answers.update(zip((each.worker for each in wanted), made, strict=True))
            wanted = await self._look_again(wanted, answers)
            if not wanted:
                break
        return answers

    async def _one(self, request: LaunchRequest) -> MachineId | CloudError:
        kind = (request.group, request.shape, request.zone)
        try:
            prepared = await self.prepare(request)
        except CloudUnavailable as error:
            return Answered(error.what, where=error.where, remedy=error.remedy)
        except CloudError as error:
            return error
        try:
            async with self.calls:
                return self._refused.get(kind) or await self.make(request, prepared)
        except CloudError as error:
            if isinstance(error, ImageNotFound | LaunchRejected):
                self.forget()
            if isinstance(error, ImageNotFound | LaunchRejected | QuotaExceeded | NoCapacity | AuthenticationFailed):
                self._refused[kind] = error
            return error

    async def _look_again(self, asked: Sequence[LaunchRequest], answers: Answers) -> Sequence[LaunchRequest]:
        """Find what was made without an answer. Returns what was not made, and may be asked for again."""
        looks = 0
        for pause in LOOKS:
            lost = [each.worker for each in asked if isinstance(answers[each.worker], CloudUnavailable)]
            over = all(isinstance(answers[each], Answered) for each in lost)
            if not lost or (over and looks >= SURE) or asyncio.get_running_loop().time() + pause >= self.until:
                break
            await asyncio.sleep(pause)
            try:
                found = await self.listed()
            except CloudError:
                continue
            looks += 1
            answers.update({worker: found[worker] for worker in lost if worker in found})
        return [each for each in asked if looks >= SURE and isinstance(answers[each.worker], Answered)]

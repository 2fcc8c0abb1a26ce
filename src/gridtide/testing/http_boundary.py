"""Faults of a cloud behind HTTP, made by a proxy before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gridtide.testing.cloud_bench import Boundary, Fault, Step
from gridtide.testing.expect import expect
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault

_BY_THE_NETWORK: Final = {
    Fault.UNREACHABLE: HttpFault.REFUSED,
    Fault.HANG: HttpFault.HANG,
    Fault.SILENCE: HttpFault.HANG_AFTER,
    Fault.DROP: HttpFault.LOST,
    Fault.CUT: HttpFault.CUT,
    Fault.LAG: HttpFault.OLD,
}
_HANGING: Final = {HttpFault.HANG, HttpFault.HANG_AFTER}


@dataclass(frozen=True)
class HttpBoundary(Boundary):
    """``steps``: names of the API calls that do a step's work. ``answers``: how the cloud words its refusals."""

    proxy: FaultProxy
    steps: Mapping[Step, str]
    answers: Mapping[Fault, Answer]
    """Of THROTTLE, CREDENTIALS, CAPACITY and QUOTA, each as this cloud says it."""
    lacks: Mapping[tuple[Fault, Step | None], str] = field(default_factory=lambda: MappingProxyType({}))
    """Faults that this cloud never has (None: in no step), and why."""
    _begun: list[tuple[HttpFault, int]] = field(default_factory=list)
    """What was begun, and how often it had happened before."""

    def cannot(self, fault: Fault, step: Step | None) -> str:
        """What it lacks in this step, or in any."""
        return self.lacks.get((fault, step)) or self.lacks.get((fault, None), "")

    async def begin(self, fault: Fault, step: Step | None, times: int | None) -> None:
        """One more rule of the proxy."""
        call = None if step is None else self.steps[step]
        kind = _BY_THE_NETWORK.get(fault, HttpFault.ANSWER)
        self._begun.append((kind, self._times(kind)))
        self.proxy.add(kind, call=call, times=times, answer=self.answers.get(fault))

    async def end(self) -> None:
        """Calls that hang already go on hanging. AssertionError for a fault that happened to no call: a case that met
        none proves nothing. (One that makes calls hang may come too late for a call that is given up.)"""
        self.proxy.heal()
        idle = [kind for kind, before in self._begun if kind not in _HANGING and self._times(kind) == before]
        self._begun.clear()
        expect(not idle, "the fault happened to a call: steps names the calls of this cloud", idle)

    def _times(self, kind: HttpFault) -> int:
        return sum(number for (_, fault), number in self.proxy.struck.items() if fault is kind)

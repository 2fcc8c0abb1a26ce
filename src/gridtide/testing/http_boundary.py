"""Faults of a cloud behind HTTP, made by a proxy before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gridtide.testing.cloud_bench import Boundary, Fault, Step
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault

_BY_THE_NETWORK: Final = {
    Fault.UNREACHABLE: HttpFault.REFUSED,
    Fault.HANG: HttpFault.HANG,
    Fault.SILENCE: HttpFault.HANG_AFTER,
    Fault.DROP: HttpFault.LOST,
    Fault.CUT: HttpFault.CUT,
    Fault.LAG: HttpFault.OLD,
}


@dataclass(frozen=True)
class HttpBoundary(Boundary):
    """``steps``: names of the API calls that do a step's work. ``answers``: how the cloud words its refusals."""

    proxy: FaultProxy
    steps: Mapping[Step, str]
    answers: Mapping[Fault, Answer]
    """Of THROTTLE, CREDENTIALS, CAPACITY and QUOTA, each as this cloud says it."""
    lacks: Mapping[Fault, str] = field(default_factory=lambda: MappingProxyType({}))
    """Faults that this cloud never has, and why."""

    def cannot(self, fault: Fault, step: Step | None) -> str:
        """What it lacks, whatever the step."""
        return self.lacks.get(fault, "")

    async def begin(self, fault: Fault, step: Step | None, times: int | None) -> None:
        """One more rule of the proxy."""
        call = None if step is None else self.steps[step]
        kind = _BY_THE_NETWORK.get(fault, HttpFault.ANSWER)
        self.proxy.add(kind, call=call, times=times, answer=self.answers.get(fault))

    async def end(self) -> None:
        """Calls that hang already go on hanging."""
        self.proxy.heal()

"""Policies of other packages, and what stands between them and the planner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

from gridtide.errors import GridtideError
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import OtherPolicy
from gridtide.model.snapshot import GroupMemory
from gridtide.planning.policies.base import Ahead, Aim, Early, Outlook
from gridtide.plug_ins import call_plug_in


class PlugInPolicy(OtherPolicy, ABC):
    """What a package from elsewhere derives its policy from: a frozen dataclass, equal when its parameters are.

    As every policy it is pure: no clock, no random source, no I/O, nothing that changes.
    """

    __slots__ = ()

    @abstractmethod
    def aim(self, outlook: Outlook) -> Aim:
        """What it wants now. Equal outlooks get equal aims."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """The policy of another package. When it fails, its own group starts and ends nothing; no other group notices."""

    policy: OtherPolicy

    def aim(self, outlook: Outlook) -> Aim:
        """What it wants, if that can be wanted; else patience, with the fault as its reason."""
        if not isinstance(self.policy, PlugInPolicy):
            return self._failed(outlook, "it is no PlugInPolicy")
        policy = self.policy
        try:
            aim = call_plug_in(lambda: policy.aim(outlook))
        except GridtideError as error:
            return self._failed(outlook, error.what)
        if not isinstance(aim, Aim):
            return self._failed(outlook, f"it aims at {type(aim).__name__}, not at an Aim")
        fault = next(_faults(aim), None)
        return aim if fault is None else self._failed(outlook, f"it aims at {fault}")

    def _failed(self, outlook: Outlook, what: str) -> Aim:
        name = type(self.policy).__name__
        return Aim(outlook.memory, patience=Reason(Cause.POLICY_FAILED, f"the policy {name} failed: {what}"))


def _faults(aim: Aim) -> Iterator[str]:
    """What nothing can be reckoned with."""
    for key, least in (("count", 0), ("minimum", 0), ("maximum", 0), ("jobs_per_worker", 1), ("spread", 1)):
        number = getattr(aim, key)
        if number is not None and (type(number) is not int or number < least):
            yield f"{key} = {number!r}"
    for key in ("until", "look_again", "deploy_time", "idle_for"):
        seconds = getattr(aim, key)
        if seconds is not None and (type(seconds) not in (int, float) or not isfinite(seconds) or seconds < 0):
            yield f"{key} = {seconds!r}"
    for key, kind in (("ahead", Ahead), ("early", Early)):
        if not isinstance(getattr(aim, key), kind | None):
            yield f"{key} = {getattr(aim, key)!r}"
    if not isinstance(aim.memory, GroupMemory):
        yield f"memory = {aim.memory!r}"
    for key in ("patience", "why"):
        if not isinstance(getattr(aim, key), Reason | None):
            yield f"{key} = {getattr(aim, key)!r}"

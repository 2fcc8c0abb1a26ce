"""Faults by name, injected while things run: which, into which calls, how often, for how long, how probably."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Generic, TypeVar

from gridtide.clock import Clock
from gridtide.errors import SourceError

F = TypeVar("F", bound=StrEnum)


@dataclass(slots=True)
class _Injection(Generic[F]):
    fault: F
    call: str | None
    left: int | None
    start: float
    end: float | None
    chance: float
    error: SourceError | None


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that happens now. ``error`` is the one to raise, None for the fault's usual one."""

    error: SourceError | None


class Faults(Generic[F]):
    """The faults that a fake suffers from. Deterministic: chances are drawn from the given generator only."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._injections: list[_Injection[F]] = []

    def inject(
        self,
        fault: F,
        *,
        call: str | None = None,
        times: int | None = None,
        after: float = 0.0,
        seconds: float | None = None,
        chance: float = 1.0,
        error: SourceError | None = None,
    ) -> Callable[[], None]:
        """Let ``fault`` strike. Returns what heals this one alone, before its time.

        ``call``: only this kind of call. ``times``: so often, then never again. From ``after`` seconds from now on,
        for ``seconds``. With probability ``chance`` each time. None: without limit.
        """
        now = self._clock.now()
        self._injections = [each for each in self._injections if each.end is None or each.end > now]
        start = now + after
        end = None if seconds is None else start + seconds
        made = _Injection(fault, call, times, start, end, chance, error)
        self._injections.append(made)
        return lambda: self._heal(made)

    def _heal(self, healed: _Injection[F]) -> None:
        self._injections = [each for each in self._injections if each is not healed]

    def clear(self, fault: F | None = None) -> None:
        """Heal: this fault, or all."""
        self._injections = [] if fault is None else [each for each in self._injections if each.fault != fault]

    def strike(self, fault: F, call: str) -> Strike | None:
        """Whether it happens to this call now; None when not. Counts as one of its ``times``."""
        if not self._injections:
            return None
        now = self._clock.now()
        for each in self._injections:
            if each.fault != fault or each.left == 0 or (each.call is not None and each.call != call):
                continue
            if now < each.start or (each.end is not None and now >= each.end):
                continue
            if each.chance < 1.0 and self._random.random() >= each.chance:
                continue
            if each.left is not None:
                each.left -= 1
            return Strike(each.error)
        return None

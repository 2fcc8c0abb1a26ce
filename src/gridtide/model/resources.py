"""Amounts of machine: what a job needs, what a shape has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gridtide.model.ids import ShapeName


@dataclass(frozen=True, slots=True, order=True)
class Resources:
    """Cores, memory in MiB, disk in MiB, GPUs. Never negative."""

    cores: int = 0
    memory: int = 0
    disk: int = 0
    gpus: int = 0

    def __post_init__(self) -> None:
        if min(self.cores, self.memory, self.disk, self.gpus) < 0:
            raise ValueError(f"resources cannot be negative: {self}")

    def covers(self, need: Resources) -> bool:
        """Whether one job of this need fits."""
        return (
            need.cores <= self.cores
            and need.memory <= self.memory
            and need.disk <= self.disk
            and need.gpus <= self.gpus
        )

    def how_many(self, need: Resources) -> int:
        """How many jobs of this need fit at the same time. A need of nothing at all is a ValueError."""
        limits = [
            have // want
            for have, want in (
                (self.cores, need.cores),
                (self.memory, need.memory),
                (self.disk, need.disk),
                (self.gpus, need.gpus),
            )
            if want > 0
        ]
        if not limits:
            raise ValueError("a job that needs nothing fits without limit")
        return min(limits)

    def plus(self, other: Resources) -> Self:
        """Sum, component by component."""
        return type(self)(
            self.cores + other.cores, self.memory + other.memory, self.disk + other.disk, self.gpus + other.gpus
        )

    def minus(self, other: Resources) -> Self:
        """Difference. ValueError when a component would become negative: check :meth:`covers` first."""
        return type(self)(
            self.cores - other.cores, self.memory - other.memory, self.disk - other.disk, self.gpus - other.gpus
        )

    def times(self, count: int) -> Self:
        """The amount taken by ``count`` of these."""
        return type(self)(self.cores * count, self.memory * count, self.disk * count, self.gpus * count)

    def __str__(self) -> str:
        parts = [f"{self.cores} core{'' if self.cores == 1 else 's'}"]
        for amount, name in ((self.memory, "memory"), (self.disk, "disk")):
            if amount:
                size = f"{amount // 1024} GiB" if amount % 1024 == 0 else f"{amount} MiB"
                parts.append(f"{size} {name}")
        if self.gpus:
            parts.append(f"{self.gpus} GPU{'' if self.gpus == 1 else 's'}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of machine that a cloud offers (its flavour, instance type or offer)."""

    name: ShapeName
    resources: Resources
    price: float = 0.0
    """Per hour, in the currency of the price list; 0 for machines that cost nothing extra."""

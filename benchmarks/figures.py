"""What a benchmark reports."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Literal

Compare = Literal["<=", ">=", "=="]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure and what it is measured against."""

    name: str
    value: float
    unit: str
    compare: Compare
    limit: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        match self.compare:
            case "<=":
                return self.value <= self.limit
            case ">=":
                return self.value >= self.limit
            case "==":
                return self.value == self.limit

    @property
    def target(self) -> str:
        """In words."""
        return f"{self.compare} {self.limit:g} {self.unit}"

    def document(self) -> dict[str, object]:
        """One entry of ``benchmarks/latest.json``."""
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "target": self.target,
            "ok": self.ok,
            "note": self.note,
            "machine": machine(),
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """What it was measured on."""

    system: str
    processor: str
    cores: int
    python: str


def machine() -> dict[str, object]:
    """This one."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as source:
            model = next((line.split(":")[1].strip() for line in source if line.startswith("model name")), model)
    except OSError:
        pass
    return asdict(Machine(platform.platform(), model, os.cpu_count() or 1, platform.python_version()))

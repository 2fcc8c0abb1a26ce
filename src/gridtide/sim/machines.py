"""What is kept of each machine of a run."""

from __future__ import annotations

from dataclasses import dataclass

from gridtide.model.ids import CloudName, WorkerId
from gridtide.model.resources import Shape


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One machine of the run. Times are seconds from the workload's start."""

    worker: WorkerId
    cloud: CloudName
    shape: Shape
    made: float
    joined: float | None
    ended: float
    charged: float
    """Seconds on the bill."""

    @property
    def cost(self) -> float:
        """In the currency of the price list."""
        return self.shape.price * self.charged / 3600.0

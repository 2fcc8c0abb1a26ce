"""A constant number of workers."""

from __future__ import annotations

from dataclasses import dataclass

from gridtide.model.rules import FixedPolicy
from gridtide.planning.policies.base import Aim, Outlook


@dataclass(frozen=True, slots=True)
class KeepCount:
    """The same number, whatever waits."""

    parameters: FixedPolicy

    def aim(self, outlook: Outlook) -> Aim:
        """Demand is not looked at, idle workers are kept."""
        return Aim(memory=outlook.memory, count=self.parameters.count)

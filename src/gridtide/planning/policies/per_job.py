"""One single-use worker for each waiting job (AliEC2, seeds-digest section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from gridtide.model.rules import PerJobPolicy
from gridtide.planning.policies.base import Aim, Outlook


@dataclass(frozen=True, slots=True)
class OnePerJob:
    """No worker exists while there is no job."""

    parameters: PerJobPolicy

    def aim(self, outlook: Outlook) -> Aim:
        """Each new worker takes one job, then drains by itself."""
        return Aim(memory=outlook.memory, jobs_per_worker=1, single_use=True, idle_for=self.parameters.idle_for)

"""Asks HTCondor's evaluator which machines would run which jobs, each pair once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gridtide.queues.htcondor.asking import Asker
from gridtide.queues.htcondor.errors import PoolIncomplete
from gridtide.queues.htcondor.planned import digest
from gridtide.queues.htcondor.rows import Fit, Judged, judged

# Pairs kept. Beyond it all are judged anew, at some tens of microseconds each.
_MOST: Final = 200_000

Expressions = dict[str, str]


class Judge:
    """Remembers verdicts by job and machine."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._jobs: dict[str, Judged] = {}
        self._verdicts: dict[tuple[str, str], Fit] = {}

    async def judge(
        self,
        jobs: Sequence[Expressions],
        offers: Sequence[Expressions],
        others: Mapping[str, Expressions] | None,
        deadline: float,
    ) -> list[Judged]:
        """Of each job, in order. ``others`` are other nodes by kind, with resources that never matter."""
        machines = {digest(ad): ad for ad in (*offers, *(others or {}).values())}
        keys = [digest(job) for job in jobs]
        await self._learn(dict(zip(keys, jobs, strict=True)), machines, deadline)
        columns = [digest(ad) for ad in offers]
        kinds = {kind: digest(ad) for kind, ad in (others or {}).items()}
        return [
            Judged(
                self._jobs[key].need,
                self._jobs[key].walltime,
                tuple(self._verdicts[key, column] for column in columns),
                None if others is None else {kind: self._verdicts[key, column] for kind, column in kinds.items()},
            )
            for key in keys
        ]

    async def _learn(
        self, jobs: Mapping[str, Expressions], machines: Mapping[str, Expressions], deadline: float
    ) -> None:
        if len(self._verdicts) > _MOST:
            self._jobs.clear()
            self._verdicts.clear()
        new = [
            key
            for key in jobs
            if key not in self._jobs or any((key, column) not in self._verdicts for column in machines)
        ]
        if not new:
            return
        said = await self._asker.call(
            "judge", deadline, jobs=[jobs[key] for key in new], machines=list(machines.values())
        )
        for key, told in zip(new, said, strict=True):
            if not isinstance(told, list):
                raise PoolIncomplete("a verdict is missing")
            found = judged(told, None)
            self._jobs[key] = found
            self._verdicts.update({(key, column): fit for column, fit in zip(machines, found.offers, strict=True)})

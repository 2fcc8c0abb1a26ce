"""Orders to the startds of our workers: take no more jobs; go on.

An order sets one attribute of the startd, on which its START depends, and has it read its configuration again; the
startd calls us back through the pool's connection broker. The order is given with a token that this one startd accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from gridtide.errors import QueueError
from gridtide.model.ids import WorkerId
from gridtide.queues.htcondor.access import Access
from gridtide.queues.htcondor.asking import Asker, Json
from gridtide.queues.htcondor.errors import PoolUnreachable
from gridtide.queues.htcondor.joining import DRAIN, LEASE_LOST, WORKER
from gridtide.queues.protocol import Outcome

AT_ONCE: Final = 8
"""Processes that give orders at the same time. More of them finish a large drain no sooner than the collector, which
brokers each connection, can follow."""

PATIENCE: Final = 4.0
"""Seconds for one worker's startd to take an order. One that hangs costs its own order and no other."""


class Orders:
    """Gives orders in bulk."""

    def __init__(self, asker: Asker, access: Access, where: str) -> None:
        self._asker, self._access, self._where = asker, access, where

    async def give(self, workers: Sequence[WorkerId], value: int, deadline: float) -> dict[WorkerId, Outcome]:
        """An outcome for each. QueueError when the collector does not say where they are."""
        if not workers:
            return {}
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        places = await self._places(workers, deadline)
        outcomes: dict[WorkerId, Outcome] = {
            worker: QueueError(f"the pool does not list worker {worker}", where=self._where)
            for worker in workers
            if worker not in places
        }
        if value == 0:
            for worker, (_, lost) in places.items():
                if lost:
                    outcomes[worker] = QueueError(f"worker {worker} drains by itself", where=self._where)
        todo = [worker for worker in workers if worker not in outcomes]
        portions = [todo[start::AT_ONCE] for start in range(min(AT_ONCE, len(todo)))]
        with self._access.order_tokens(todo) as tokens:
            await asyncio.gather(
                *(
                    self._portion(
                        portion, {worker: places[worker][0] for worker in portion}, value, str(tokens), ends, outcomes
                    )
                    for portion in portions
                )
            )
        return outcomes

    async def _portion(
        self,
        workers: Sequence[WorkerId],
        places: Mapping[WorkerId, str],
        value: int,
        tokens: str,
        ends: float,
        outcomes: dict[WorkerId, Outcome],
    ) -> None:
        """One after the other; one that hangs is given up, and the others go on in a new process."""
        left = list(workers)
        late = PoolUnreachable("there was no time left for this order", where=self._where)
        outcomes.update(dict.fromkeys(left, late))
        while left and asyncio.get_running_loop().time() < ends:
            done = await self._some(left, places, value, tokens, ends, outcomes)
            left = left[done:]

    async def _some(
        self,
        left: Sequence[WorkerId],
        places: Mapping[WorkerId, str],
        value: int,
        tokens: str,
        ends: float,
        outcomes: dict[WorkerId, Outcome],
    ) -> int:
        """How many of these have their outcome now; at least one."""
        done = 0
        patience = min(PATIENCE, ends - asyncio.get_running_loop().time())
        answers = self._asker.items(
            "order", ends - asyncio.get_running_loop().time() + 1.0,
            tokens=tokens, attribute=DRAIN, value=value, workers={worker: places[worker] for worker in left},
        )  # fmt: skip
        try:
            while done < len(left):
                async with asyncio.timeout(patience):
                    item = await anext(answers)
                outcomes[left[done]] = self._outcome(left[done], item)
                done += 1
        except (TimeoutError, PoolUnreachable, StopAsyncIteration):
            outcomes[left[done]] = PoolUnreachable(f"worker {left[done]} does not take orders", where=self._where)
            done += 1
        finally:
            await answers.aclose()
        return done

    def _outcome(self, worker: WorkerId, item: Json) -> Outcome:
        if not isinstance(item, dict) or item.get("worker") != worker:
            return QueueError(f"no clear answer for worker {worker}", where=self._where)
        wrong = item.get("error")
        return (
            None if wrong is None else QueueError(f"worker {worker} did not take the order: {wrong}", where=self._where)
        )

    async def _places(self, workers: Sequence[WorkerId], deadline: float) -> dict[WorkerId, tuple[str, bool]]:
        """Address of the startd, and whether it drains by itself."""
        said = await self._asker.call(
            "addresses", deadline, attribute=WORKER, workers=list(workers), more=[LEASE_LOST, "State", "SlotType"]
        )
        found: dict[WorkerId, tuple[str, bool]] = {}
        for slot in said:
            if isinstance(slot, dict) and slot.get("SlotType") != "Dynamic":
                lost = slot.get(LEASE_LOST) is True or slot.get("State") == "Drained"
                found[WorkerId(str(slot[WORKER]))] = (str(slot["MyAddress"]), lost)
        return found

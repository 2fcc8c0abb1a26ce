"""Workers spawned one by one through AliEC2's routes (seeds-digest section 1): a queue without waiting jobs.

A spawned worker runs the script that it was spawned with, says that it lives, and says when it is done. All that is
known of one is kept in ``directory/<worker>/``: its ``script``, and marks for ``alive``, ``draining`` and ``done``; so
a restart forgets nothing. Done is the positive evidence on which its machine is returned; silence is none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gridtide.errors import NotFound, QueueError
from gridtide.model.demand import Attribute, Demand, Node, Nodes, NodeState, Offer
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.workers import Worker
from gridtide.queues.protocol import JoinOrders, Outcome


class SpawnedQueue:
    """Implements :class:`gridtide.queues.protocol.Queue`."""

    def __init__(self, name: QueueName, directory: Path) -> None:
        self.name = name
        self._directory = directory

    # --- what the three routes tell

    def keep_script(self, worker: WorkerId, script: bytes) -> None:
        """Before the worker's intent is recorded, so that no launch can miss it."""
        home = self._directory / worker
        home.mkdir(mode=0o700, parents=True)
        with os.fdopen(os.open(home / "script", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
            sink.write(script)

    def script(self, worker: WorkerId) -> bytes:
        """NotFound for a worker that was not spawned here."""
        try:
            return (self._directory / worker / "script").read_bytes()
        except OSError:
            raise NotFound(f"no worker {worker} was spawned") from None

    def mark(self, worker: WorkerId, what: str) -> None:
        """``alive`` or ``done``. NotFound for a worker that was not spawned here, or is gone."""
        try:
            (self._directory / worker / what).touch(mode=0o600)
        except OSError:
            raise NotFound(f"no worker {worker} was spawned") from None

    # --- the protocol

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        """Nothing waits here: each request makes its worker at once."""
        return ()

    async def nodes(self) -> Nodes:
        """Spawned workers that have spoken."""
        return self._nodes()  # a few small directories: a thread would cost more

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        """They take no second job anyway; what runs ends by itself."""
        return {worker: self._mark_draining(worker) for worker in workers}

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        """Possible until the worker is done."""
        return {worker: self._unmark_draining(worker) for worker in workers}

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        """QueueError: a spawned worker does not join, it calls ``/alive``."""
        raise QueueError("spawned workers do not join", where=self.name, remedy="their script calls /alive/ID")

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        """Remove what is kept of them."""
        for worker in workers:
            shutil.rmtree(self._directory / worker, ignore_errors=True)

    def _nodes(self) -> Nodes:
        nodes: list[Node] = []
        try:
            homes = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise QueueError(f"cannot be read: {error.strerror}", where=str(self._directory)) from None
        for home in homes:
            marks = {each.name for each in home.iterdir()} if home.is_dir() else set()
            if "done" in marks:
                state = NodeState.DRAINED
            elif "alive" in marks:
                state = NodeState.DRAINING if "draining" in marks else NodeState.ACCEPTING
            else:
                continue
            running = 0 if state is NodeState.DRAINED else 1
            nodes.append(Node(home.name, WorkerId(home.name), state, Resources(), Resources(), running, None))
        return tuple(nodes)

    def _mark_draining(self, worker: WorkerId) -> Outcome:
        try:
            self.mark(worker, "draining")
        except NotFound as error:
            return QueueError(error.what, where=self.name)
        return None

    def _unmark_draining(self, worker: WorkerId) -> Outcome:
        home = self._directory / worker
        if (home / "done").exists():
            return QueueError(f"{worker} is done", where=self.name)
        (home / "draining").unlink(missing_ok=True)
        return None

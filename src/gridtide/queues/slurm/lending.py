"""With Slurm's power saving: which worker is which node of slurm.conf.

Kept in files, so that a restart forgets nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gridtide.errors import InvalidRequest
from gridtide.model.ids import WorkerId

_NODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62})?")


class Lending:
    """One file for each node that a worker stands for; it holds the worker's id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._workers: dict[str, WorkerId] | None = None

    @property
    def workers(self) -> Mapping[str, WorkerId]:
        """Node -> worker, the gone ones too until they are forgotten."""
        return MappingProxyType(self._read())

    def node(self, worker: WorkerId) -> str | None:
        """What this worker stands for."""
        return next((node for node, lent in self._read().items() if lent == worker), None)

    def lend(self, node: str, worker: WorkerId) -> None:
        """Before the worker's intent is recorded, so that no machine can miss it. InvalidRequest for a bad name."""
        if not _NODE.fullmatch(node):
            raise InvalidRequest(f"{node[:60]!r} is not the name of a node")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._directory / f".{node}"
        fresh.write_text(worker, encoding="ascii")
        fresh.replace(self._directory / node)
        self._read()[node] = worker

    def take_back(self, worker: WorkerId) -> None:
        """It is gone. Harmless when another one stands for its node already."""
        node = self.node(worker)
        if node is not None:
            (self._directory / node).unlink(missing_ok=True)
            del self._read()[node]

    def _read(self) -> dict[str, WorkerId]:
        if self._workers is None:
            try:
                names = [name for name in os.listdir(self._directory) if _NODE.fullmatch(name)]
            except FileNotFoundError:
                names = []
            self._workers = {name: WorkerId((self._directory / name).read_text(encoding="ascii")) for name in names}
        return self._workers

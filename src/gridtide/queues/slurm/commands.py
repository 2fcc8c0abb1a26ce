"""Slurm's commands as child processes. None outlives its call: whatever ends the wait kills it and its children."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gridtide.errors import QueueError

_FOREIGN: Final = ("SQUEUE_", "SINFO_", "SLURM_", "SCONTROL_")
"""So begin variables that change what Slurm's commands show, e.g. SQUEUE_PARTITION: what an operator has set for
himself must not hide jobs or nodes from the controller."""

_VERSION: Final = re.compile(r"\b(\d\d)\.(\d\d)\.\d")

ACTIVE: Final = (
    "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "REQUEUED",
    "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "REVOKED", "RESV_DEL_HOLD",
)  # fmt: skip
"""Every state that squeue can select and in which a job may hold a node. 22.05 answers with all jobs whatever it is
asked for; they are looked at again where they are counted."""


@dataclass(frozen=True, slots=True)
class Commands:
    """How Slurm's commands are run."""

    where: str
    """For errors: the queue's name."""
    prefix: tuple[str, ...] = ()
    """What goes before each command, e.g. ``("ssh", "-oBatchMode=yes", "head")``."""
    configuration: Path | None = None
    """slurm.conf, where it is not in the usual place."""
    timeout: float = 120.0
    """Seconds that one command may take, if its caller does not end it before."""
    memory_limit: int = 4096
    """MiB that a command may take: squeue holds all that it writes as JSON in memory first."""

    async def jobs(self, *, waiting: bool) -> dict[str, Any]:
        """See :func:`gridtide.queues.slurm.reading.read_jobs`. Without ``waiting`` only what is on nodes is sure to be
        there. QueueError."""
        states = ",".join(("PENDING", *ACTIVE) if waiting else ACTIVE)
        return await self._read("jobs", "squeue", "--all", "--json", f"--states={states}")

    async def nodes(self, version: tuple[int, int]) -> list[dict[str, Any]]:
        """See :func:`gridtide.queues.slurm.reading.read_nodes`. QueueError."""
        # scontrol knows --json since 23.02; since then sinfo's lists lines of its table, not nodes.
        newer = ("scontrol", "--all", "show", "nodes", "--json")
        command = newer if version >= (23, 2) else ("sinfo", "--all", "--json")
        found: list[dict[str, Any]] = (await self._read("nodes", *command))["nodes"]
        return found

    async def version(self) -> tuple[int, int]:
        """Of the commands: ``(24, 11)``. QueueError."""
        said = await self.run("squeue", "--version")
        found = _VERSION.search(said)
        if found is None:
            raise QueueError(f"squeue does not tell its version: {said[:60]!r}", where=self.where)
        return int(found[1]), int(found[2])

    async def run(self, *command: str) -> str:
        """What it prints. QueueError with what it complains of."""
        status, said, complaint = await self._child(self._whole(command))
        if status != 0:
            raise QueueError(f"{command[0]}: {complaint or said or f'exit status {status}'}", where=self.where)
        return said

    async def _read(self, what: str, *command: str) -> dict[str, Any]:
        reader = (sys.executable, "-I", "-m", "gridtide.queues.slurm.reading", what, str(self.memory_limit))
        status, said, complaint = await self._child((*reader, *self._whole(command)))
        try:
            answer: Mapping[str, Any] = json.loads(said)
        except ValueError:
            problem = complaint.rpartition("\n")[2] or f"exit status {status}"
            raise QueueError(f"{command[0]} could not be read: {problem}", where=self.where) from None
        if "error" in answer:
            raise QueueError(f"{command[0]}: {answer['error']}", where=self.where)
        result: dict[str, Any] = answer["result"]
        return result

    def _whole(self, command: Sequence[str]) -> tuple[str, ...]:
        # SLURM_BITSTR_LEN=0: lists of array tasks are not cut off (squeue(1)). "env" carries it past sudo and ssh.
        settings = ["SLURM_BITSTR_LEN=0"]
        if self.configuration is not None:
            settings.append(f"SLURM_CONF={self.configuration}")
        return (*self.prefix, "env", *settings, *command)

    async def _child(self, command: Sequence[str]) -> tuple[int, str, str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise QueueError(
                f"{command[0]} cannot be run: {error.strerror}",
                where=self.where,
                remedy="install Slurm's client commands, or name a prefix that runs them",
            ) from None
        try:
            async with asyncio.timeout(self.timeout):
                said, complaint = await process.communicate()
        except TimeoutError:
            raise QueueError(f"no answer within {self.timeout:g} s", where=self.where) from None
        finally:
            # Its session has its own group: nothing of what it started is left, even when it has ended itself.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                await asyncio.shield(process.wait())
        return process.returncode or 0, _one_line(said), _one_line(complaint)


def _one_line(raw: bytes) -> str:
    return raw.decode(errors="replace").strip()

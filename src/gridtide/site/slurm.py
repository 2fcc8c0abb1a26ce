"""``[queues.NAME]`` with ``type = "slurm"``: a cluster whose jobs run on our machines."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from gridtide.site.base import RESTART, Count, Directory, File, Text, written
from gridtide.site.drivers import QueueSettings
from gridtide.site.registry import register_queue
from gridtide.site.units import Period, PositiveSize, Size, wrong

PORT: Final = 6817
"""Slurm's own default of SlurmctldPort."""

_CONTROLLER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*)(?::([0-9]{1,5}))?")
_FEATURE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


def _controller(text: str) -> str:
    found = _CONTROLLER.fullmatch(text)
    if found is None or not 0 < int(found[2] or PORT) < 65_536:
        raise wrong(
            f"{text[:60]!r} is not an address of slurmctld", 'HOST or HOST:PORT, for example "head.example.org"'
        )
    return f"{found[1]}:{found[2] or PORT}"


def _feature(text: str) -> str:
    if not _FEATURE.fullmatch(text):
        raise wrong(f"{text[:60]!r} cannot be a feature", "a letter, then letters, digits, '_' and '-', at most 40")
    return text


class SlurmQueueSettings(QueueSettings):
    """A Slurm cluster, 22.05 or later. Workers join it as dynamic nodes."""

    privileged: ClassVar[bool] = True
    single_use: ClassVar[bool] = False

    type: Literal["slurm"] = Field(description="A Slurm cluster.", json_schema_extra=RESTART)
    controllers: Annotated[tuple[Annotated[Text, AfterValidator(_controller)], ...], Field(min_length=1)] = Field(
        description="Where workers find slurmctld: `HOST` or `HOST:PORT`, the backup controllers after the first.",
        json_schema_extra=RESTART,
    )
    munge_key: File = written(
        "/etc/munge/munge.key", description="The cluster's key; each worker gets a copy when it joins.", restart=True
    )
    prefix: tuple[Text, ...] = written(
        (),
        description="Goes before each of Slurm's commands, for example "
        '`["ssh", "-oBatchMode=yes", "head"]`. Empty: they run here.',
        restart=True,
    )
    configuration: Text | None = written(
        None, description="slurm.conf for these commands. Left out: the usual place.", restart=True
    )
    marker: Annotated[Text, AfterValidator(_feature)] = written(
        "gridtide",
        description="Feature that all workers have, and that no other node may have. Two sites that serve one cluster "
        "need two.",
        restart=True,
    )
    reserve: Size = written(
        "128 MiB",
        description="Memory of each machine that jobs do not get: for its kernel and daemons.",
        restart=True,
    )
    own_ports: bool = written(
        False,
        description="Each worker's slurmd listens on a port of its own, for machines that share an address: QEMU's "
        "user network, or processes in the host's network. Needs Slurm 23.11.",
        restart=True,
    )
    templates: Count = written(
        1,
        description="How many drained nodes stand for each shape of each group, so that Slurm takes in jobs while no "
        "machine is there: as many as a job may ask for nodes.",
        restart=True,
    )
    timeout: Period = written("2 min", description="A command that takes longer is ended.", restart=True)
    memory_limit: PositiveSize = written(
        "4 GiB", description="Memory that one command may take. squeue holds its whole answer.", restart=True
    )

    power_saving: bool = written(
        False,
        description="Slurm's own power saving says which nodes are wanted: workers stand for nodes of slurm.conf, and "
        "come and go only by `gridtide slurm-resume` and `slurm-suspend`.",
        restart=True,
    )
    storage: Directory = written(
        Path("{state}/queues/{name}"),
        description="Directory for which worker stands for which node, with `power_saving`.",
        restart=True,
    )

    def loopback(self) -> str:
        """The first controller's address when only this host can call it; else empty."""
        host = self.controllers[0].partition(":")[0]
        try:
            address = IPv4Address(host)
        except ValueError:
            return ""
        return host if address.is_loopback else ""

    def configuration_file(self) -> Path | None:
        """As the commands see it, which may run on another machine: it is not looked for here."""
        return None if self.configuration is None else Path(self.configuration)


register_queue("slurm", SlurmQueueSettings)

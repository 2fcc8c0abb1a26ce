"""``[clouds.NAME]`` with ``type = "qemu"``: virtual machines of this host."""

from __future__ import annotations

import os
from math import floor
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, Field

from gridtide.model.machines import Quota
from gridtide.site.base import RESTART, Directory, Text, is_loopback, written
from gridtide.site.drivers import LocalCloudSettings
from gridtide.site.registry import register_cloud
from gridtide.site.units import wrong

HOST: Final = "10.0.2.2"
"""The host, as guests of QEMU's user network call it."""

_RESERVE: Final = 1024
"""MiB of memory that machines leave to the host: without them the host's own programs are the first to die."""


def _factor(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 64:
        raise wrong("must be a number above 0, at most 64", "for example 2.0: twice as many cores as the host has")
    return value


class QemuCloudSettings(LocalCloudSettings):
    """Workers are virtual machines of this host, booted from its images (`gridtide image`)."""

    type: Literal["qemu"] = Field(description="Workers are virtual machines of this host.", json_schema_extra=RESTART)
    images: Directory | None = written(
        None, description="Where the images are. Left out: this host's store.", restart=True
    )
    accelerator: Literal["auto", "kvm", "tcg"] = written(
        "auto", description='"auto": KVM where the host has it, emulation (TCG) otherwise.', restart=True
    )
    overcommit: Annotated[float, BeforeValidator(_factor)] = written(
        1.0, description="Cores given to machines for each core of the host. Memory is never given twice."
    )
    saved_states: bool = written(
        True,
        description="Continue machines from a saved state of a first one, where the image can: a second instead of a "
        "boot.",
        restart=True,
    )
    forward: bool = written(
        False,
        description="Each machine can be called at 127.0.0.1, on a port of its own. Slurm needs it, with "
        "`own_ports` in its queue.",
        restart=True,
    )
    program: Text = written("qemu-system-x86_64", description="QEMU.", restart=True)

    def limits(self) -> Quota:
        """What the file says; what it leaves open, the host's own cores and memory say."""
        cores = floor((os.cpu_count() or 1) * self.overcommit)
        memory = (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20) - _RESERVE
        given = self.quota.quota()
        return Quota(
            cores if given.cores is None else given.cores,
            max(0, memory) if given.memory is None else given.memory,
            given.machines,
        )

    def reached(self, url: str) -> str:
        """The host's loopback is another address in the guest."""
        parts = urlsplit(url)
        if parts.hostname is None or not is_loopback(parts.hostname):
            return url
        port = f":{parts.port}" if parts.port is not None else ""
        return urlunsplit(parts._replace(netloc=HOST + port))


register_cloud("qemu", QemuCloudSettings)

"""``[queues.NAME]`` with ``type = "htcondor"``: a pool whose jobs run on our machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from gridtide.site.base import RESTART, AttributeKey, AttributeValue, Directory, File, Text, written
from gridtide.site.drivers import QueueSettings
from gridtide.site.registry import register_queue
from gridtide.site.units import Period, wrong

PORT: Final = 9618
"""HTCondor's own default of its shared port."""

_COLLECTOR: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]*)(?::([0-9]{1,5}))?")
_PORTS: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


def _collector(text: str) -> str:
    found = _COLLECTOR.fullmatch(text)
    if found is None or not 0 < int(found[2] or PORT) < 65_536:
        raise wrong(
            f"{text[:60]!r} is not an address of a collector", 'HOST or HOST:PORT, for example "cm.example.org"'
        )
    return f"{found[1]}:{found[2] or PORT}"


def _check_ports(text: str) -> str:
    found = _PORTS.fullmatch(text)
    if found is None or not 1024 <= int(found[1]) < int(found[2]) < 65_536:
        raise wrong(f"{text[:60]!r} is not a range of ports", 'two ports from 1024, for example "9700-9799"')
    return text


def _line(text: str) -> str:
    if "\n" in text or ("=" not in text and not text.startswith(("use ", "include "))):
        raise wrong(
            f"{text[:60]!r} is not a line of HTCondor configuration", 'NAME = VALUE, for example "SLOT_WEIGHT = 1"'
        )
    return text


class HTCondorQueueSettings(QueueSettings):
    """An HTCondor pool, version 10 or later. Workers join it as execution points."""

    privileged: ClassVar[bool] = True

    type: Literal["htcondor"] = Field(description="An HTCondor pool.", json_schema_extra=RESTART)
    collector: Annotated[Text, AfterValidator(_collector)] = Field(
        description="Where the pool's collector is: `HOST` or `HOST:PORT` (9618).", json_schema_extra=RESTART
    )
    signing_key: File = written(
        "/etc/condor/passwords.d/POOL",
        description="A key that the pool's daemons trust, in a file of the same name as there. The controller makes "
        "tokens with it: one for itself, and one for each worker.",
        restart=True,
    )
    trust_domain: Text | None = written(
        None, description="The pool's TRUST_DOMAIN. Left out: the collector's host, as written above.", restart=True
    )
    schedds: tuple[Text, ...] = written(
        (), description="Names of the schedds whose jobs count. Empty: all of the pool.", restart=True
    )
    attributes: Mapping[AttributeKey, AttributeValue] = written(
        {}, description="What all workers of this queue advertise, besides what their group says.", restart=True
    )
    start: Annotated[Text, AfterValidator(lambda text: " ".join(text.split()))] = written(
        "True", description="HTCondor's START: which jobs workers take, as an expression.", restart=True
    )
    slots: Literal["partitionable", "static"] = written(
        "partitionable",
        description='"partitionable": one slot that is divided as jobs ask. "static": one slot for each core.',
        restart=True,
    )
    url_transfers: bool = written(
        False,
        description="Workers fetch and store files by URL for jobs. They start a few seconds later then.",
        restart=True,
    )
    update_interval: Period = written(
        "30 s", description="How often a worker reports to the collector when nothing happens.", restart=True
    )
    deadline: Period = written(
        "8 s",
        description="A daemon that takes longer to answer has failed. Shorter than `controller.queue_deadline`, so "
        "that the error can name it.",
        restart=True,
    )
    address: Text | None = written(
        None,
        description="Address of this host that workers call back to when they are told to drain. Left out: HTCondor "
        "finds it.",
        restart=True,
    )
    ports: Annotated[Text, AfterValidator(_check_ports)] | None = written(
        None, description="Ports of this host for that, for a firewall: `FIRST-LAST`. Left out: any.", restart=True
    )
    configuration: tuple[Annotated[Text, AfterValidator(_line)], ...] = written(
        (), description="Lines that are added to the workers' HTCondor configuration, after all others.", restart=True
    )
    storage: Directory = written(
        Path("{state}/queues/{name}"), description="Directory for the controller's tokens.", restart=True
    )

    def domain(self) -> str:
        """The pool's trust domain."""
        return self.trust_domain or self.collector.rpartition(":")[0]

    def port_range(self) -> tuple[int, int] | None:
        """The ports as numbers."""
        if self.ports is None:
            return None
        first, _, last = self.ports.partition("-")
        return int(first), int(last)


register_queue("htcondor", HTCondorQueueSettings)

"""Which driver serves which ``type`` of the site file. The only place that knows them all."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.protocol import Cloud
from gridtide.errors import SiteFileError
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, QueueName
from gridtide.pilot.protocol import Pilot
from gridtide.queues.aliec2 import SpawnedQueue
from gridtide.queues.pilot import PilotQueueDriver
from gridtide.queues.protocol import Queue
from gridtide.site.drivers import (
    AliEC2QueueSettings,
    CloudSettings,
    PilotQueueSettings,
    ProcessCloudSettings,
    QueueSettings,
)
from gridtide.site.site import Site

# What ClassAds call the machine types that Python's platform module names.
_ARCHITECTURES: Mapping[str, str] = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "AARCH64", "arm64": "AARCH64"}


def make_cloud(name: CloudName, settings: CloudSettings, site: str) -> Cloud:
    """The driver of one ``[clouds.NAME]`` section. SiteFileError for a type without a driver."""
    if isinstance(settings, ProcessCloudSettings):
        # Two sites of one name on one machine must not take each other's processes for their own.
        place = hashlib.sha256(str(settings.directory).encode()).hexdigest()[:8]
        tag = f"{site}.{place}"
        return ProcessCloud(name, tag, settings.directory, settings.shape_values(), settle=settings.settle)
    raise SiteFileError(f"no driver for clouds of type {settings.type!r} is installed", where=f"clouds.{name}")


def make_queue(name: QueueName, settings: QueueSettings, pilot: Pilot | None) -> Queue:
    """The driver of one ``[queues.NAME]`` section. SiteFileError for a type without a driver."""
    if isinstance(settings, PilotQueueSettings) and pilot is not None:
        return PilotQueueDriver(name, pilot)
    if isinstance(settings, AliEC2QueueSettings):
        return SpawnedQueue(name, private_directory(settings.storage))
    raise SiteFileError(f"no driver for queues of type {settings.type!r} is installed", where=f"queues.{name}")


def pilot_settings(queues: Mapping[QueueName, QueueSettings]) -> tuple[QueueName, PilotQueueSettings] | None:
    """The site's pilot queue, if it has one. SiteFileError when it has two: jobs are submitted to *the* pilot queue."""
    found = [(name, each) for name, each in queues.items() if isinstance(each, PilotQueueSettings)]
    if len(found) > 1:
        raise SiteFileError(
            f"there are {len(found)} pilot queues: {', '.join(name for name, _ in found)}",
            where=f"queues.{found[1][0]}",
            remedy="one pilot queue can serve any number of groups",
        )
    return found[0] if found else None


def spawned_queue(site: Site, queues: Mapping[QueueName, Queue]) -> SpawnedQueue:
    """The queue of the group that AliEC2's routes spawn into. SiteFileError when it is of another type."""
    name = site.service.aliec2.group if site.service.aliec2 is not None else ""
    group = site.groups.get(GroupName(name))
    queue = None if group is None else queues.get(QueueName(group.queue))
    if not isinstance(queue, SpawnedQueue):
        raise SiteFileError(
            f"the queue of group {name!r} is not of type 'aliec2'",
            where=f"{site.path}: service.aliec2.group",
            remedy='give the group a queue of its own with type = "aliec2"',
        )
    return queue


def planned_attributes() -> Mapping[str, Attribute]:
    """What workers of this host's kind will say of themselves, known before one exists."""
    machine = platform.machine().lower()
    return {"Arch": _ARCHITECTURES.get(machine, machine.upper()), "OpSys": platform.system().upper()}


def private_directory(path: Path) -> Path:
    """Made, for this user alone, if it is not there. SiteFileError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SiteFileError(
            f"the directory cannot be made: {error.strerror}", where=str(path), remedy="make it, or name another"
        ) from None
    return path

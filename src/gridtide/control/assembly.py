"""What a controller is put together from: the rules, the drivers, and how machines are told who they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gridtide.clouds.protocol import Cloud
from gridtide.control.sources import Rhythm
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, QueueName
from gridtide.model.rules import SiteRules
from gridtide.model.workers import Worker
from gridtide.queues.protocol import Queue

QUEUE_RHYTHM = Rhythm(every=5.0, spacing=0.0, deadline=10.0)
CLOUD_RHYTHM = Rhythm(every=10.0, spacing=0.2, deadline=20.0)
SHAPES_RHYTHM = Rhythm(every=300.0, spacing=60.0, deadline=20.0)


NOTHING_TO_FETCH = b'{"scripts": []}'


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. All have safe defaults in the site file's ``[controller]`` section."""

    batch: float = 0.05
    """What happens within this window is looked at together. Longer makes a job wait, shorter plans more often."""
    patience: float = 0.25
    """How long a cycle waits for the reads it started before it plans with what there is."""
    launch_deadline: float = 60.0
    """More than this makes the planner believe a launch lost while its call still runs."""
    call_deadline: float = 30.0
    """For every other order to a queue or a cloud."""
    heartbeat: float = 10.0
    queue: Rhythm = QUEUE_RHYTHM
    cloud: Rhythm = CLOUD_RHYTHM
    shapes: Rhythm = SHAPES_RHYTHM


@dataclass(frozen=True, slots=True)
class Assembly:
    """Replaced as a whole when the site file changes."""

    rules: SiteRules
    queues: Mapping[QueueName, Queue]
    clouds: Mapping[CloudName, Cloud]
    render: Callable[[Worker, str], bytes]
    """The user-data of a worker, given its join token. Raises GridtideError when it cannot be made."""
    fetch: Callable[[Worker, str], bytes] = lambda _worker, _token: NOTHING_TO_FETCH
    """What did not fit into a worker's user-data, given its join token."""
    timing: Timing = field(default_factory=Timing)
    heartbeats: Mapping[GroupName, float] = field(default_factory=lambda: MappingProxyType({}))
    """Seconds between a worker's signs of life, where a group has its own figure."""
    planned_attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    """What every machine of the site will advertise, whatever its group (architecture, operating system)."""

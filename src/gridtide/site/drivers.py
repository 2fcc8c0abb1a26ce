"""``[queues.NAME]`` and ``[clouds.NAME]``: what all have in common, and the settings of the built-in drivers.

Settings are plain values: a driver takes them, this room never imports one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gridtide.errors import SiteFileError
from gridtide.model.contexts import ContextFormat
from gridtide.model.ids import CloudName, QueueName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources, Shape
from gridtide.site.base import (
    RESTART,
    Count,
    Directory,
    PositiveCount,
    Price,
    ShapeKey,
    SiteModel,
    Text,
    Typed,
    written,
)
from gridtide.site.context import ContextSettings
from gridtide.site.registry import register_cloud, register_queue
from gridtide.site.units import Duration, PositiveSize, Size, wrong

if TYPE_CHECKING:
    from gridtide.clouds.protocol import Cloud
    from gridtide.queues.protocol import Queue


class QueueSettings(Typed):
    """What every queue has. A driver's settings add to it; they set ``type`` to a literal of their own."""

    noun: ClassVar[str] = "queue"
    only_one: ClassVar[bool] = False
    """Whether a site can have but one queue of this type."""
    privileged: ClassVar[bool] = False
    """Whether agents of its workers must be root in their machine, to run the batch system's daemons."""
    single_use: ClassVar[bool] = True
    """Whether it can give a worker one job and no second one, which the policy ``per_job`` needs."""

    def driver(self, name: QueueName) -> Queue:
        """What serves a queue of a package from elsewhere. Drivers of Gridtide are made in ``gridtide.drivers``."""
        raise SiteFileError(f"no driver for queues of type {self.type!r} is installed", where=f"queues.{name}")


class QuotaSettings(SiteModel):
    """Upper limits over all machines of the tenant, those of others included. Left out: no limit."""

    cores: Count | None = written(None, description="Cores of all machines together.")
    memory: Size | None = written(None, description="Memory of all machines together.")
    machines: Count | None = written(None, description="Number of machines.")

    def quota(self) -> Quota:
        """The planner's view of it."""
        return Quota(self.cores, self.memory, self.machines)


class CloudSettings(Typed):
    """What every cloud has. A driver's settings add to it; they set ``type`` to a literal of their own."""

    noun: ClassVar[str] = "cloud"

    quota: QuotaSettings = written(
        {}, description="Upper limits over all machines of the tenant, those of others included."
    )
    settle: Duration = written(
        "60 s",
        description="How long the cloud's listing may miss a machine that was made. Too small a value makes a lost "
        "answer look like a refused launch.",
    )

    context: ContextSettings = written(
        {}, description="Files that its machines get at boot, before those of the group."
    )

    user_data_limit: ClassVar[int | None] = None
    """Bytes that the cloud takes as user-data; None: any number."""
    context_format: ClassVar[ContextFormat] = ContextFormat.CLOUD_INIT
    """How machines are told what they are for, unless image or group say otherwise."""
    shutdown: ClassVar[Literal["poweroff", "exit"]] = "poweroff"
    """What ends a machine from inside."""

    def known_shapes(self) -> Collection[str] | None:
        """The names of all shapes, when the site file itself defines them; None when only the cloud can say."""
        return None

    def limits(self) -> Quota:
        """Upper limits over all machines of this cloud."""
        return self.quota.quota()

    def reached(self, url: str) -> str:
        """The service's address as this cloud's machines call it."""
        return url

    def driver(self, name: CloudName, site: str) -> Cloud:
        """What serves a cloud of a package from elsewhere. ``site`` and ``name`` together are its machines' tag.

        Drivers of Gridtide are made in ``gridtide.drivers``.
        """
        raise SiteFileError(f"no driver for clouds of type {self.type!r} is installed", where=f"clouds.{name}")


class PilotQueueSettings(QueueSettings):
    """The built-in task queue: needs nothing installed."""

    only_one: ClassVar[bool] = True  # jobs are submitted to *the* pilot queue

    type: Literal["pilot"] = Field(description="The built-in task queue.", json_schema_extra=RESTART)
    maximum_losses: Count = written(
        3, description="How often a job whose worker was lost is queued again before it fails."
    )
    storage: Directory = written(
        Path("{state}/queues/{name}"),
        description="Directory for input files, outputs and logs of jobs.",
        restart=True,
    )


class AliEC2QueueSettings(QueueSettings):
    """Workers spawned one by one through the AliEC2-compatible routes. Nothing waits in it."""

    type: Literal["aliec2"] = Field(description="Workers spawned by request.", json_schema_extra=RESTART)
    storage: Directory = Field(
        default=Path("{state}/queues/{name}"),
        description="Directory for the scripts of spawned workers, and for what they reported.",
        json_schema_extra=RESTART,
    )


class ShapeSettings(SiteModel):
    """A kind of machine."""

    cores: PositiveCount = Field(description="Cores.")
    memory: PositiveSize = Field(description="Memory; a job that uses more is ended.")
    disk: Size = written("2 GiB", description="Disk for jobs.")
    price: Price = written(0.0, description="Per hour; the cheapest shape that fits is taken.")

    def shape(self, name: str) -> Shape:
        """The planner's view of it."""
        return Shape(ShapeName(name), Resources(self.cores, self.memory, self.disk), self.price)


class ProcessQuotaSettings(QuotaSettings):
    """As for every cloud, but the number of processes is limited unless the file says otherwise."""

    machines: Count | None = written(16, description="Number of machines, here processes.")


DEFAULT_SHAPES: Mapping[str, Mapping[str, object]] = {
    f"{cores}core": {"cores": cores, "memory": f"{cores} GiB", "disk": f"{2 * cores} GiB"} for cores in (1, 2, 4)
}
"""Shapes of a process cloud whose settings name none."""


class LocalCloudSettings(CloudSettings):
    """What the clouds have in common whose machines are processes of this host."""

    context_format: ClassVar[ContextFormat] = ContextFormat.AGENT

    settle: Duration = written(
        "0 s",
        description="How long the listing may miss a machine that was made; processes are listed at once.",
    )
    directory: Directory = written(
        Path("{state}/clouds/{name}"),
        description="Where each machine has its own directory.",
        restart=True,
    )
    shapes: Annotated[Mapping[ShapeKey, ShapeSettings], Field(min_length=1)] = written(
        DEFAULT_SHAPES, description="The kinds of machines, by name."
    )

    def known_shapes(self) -> Collection[str] | None:
        """Those of the table."""
        return self.shapes.keys()

    def shape_values(self) -> tuple[Shape, ...]:
        """The shapes as the planner sees them, in the order of the file."""
        return tuple(settings.shape(name) for name, settings in self.shapes.items())


def _addresses(value: object) -> object:
    try:
        network = IPv4Network(value if isinstance(value, str) else "")
    except ValueError:
        network = IPv4Network("0.0.0.0/0")
    if not 16 <= network.prefixlen <= 30:
        raise wrong(f"{str(value)[:60]!r} is no range of IPv4 addresses", 'for example "10.99.0.0/24", /16 to /30')
    return value


def _link(name: str) -> str:
    if not 0 < len(name) <= 15 or "/" in name or any(letter.isspace() for letter in name):
        raise wrong(f"{name[:60]!r} is not the name of a bridge", 'for example "br0", at most 15 characters')
    return name


class ProcessCloudSettings(LocalCloudSettings):
    """Workers are processes of this machine, each in a directory of its own. For trying out, tests and small sites.

    With an image (of kind "tree") a worker has a root, processes and a host name of its own; that takes root.
    """

    shutdown: ClassVar[Literal["poweroff", "exit"]] = "exit"

    type: Literal["process"] = Field(description="Workers are local processes.", json_schema_extra=RESTART)
    images: Directory | None = written(
        None, description="Where the images are. Left out: this host's store.", restart=True
    )
    network: Literal["host", "bridge"] = written(
        "host",
        description='Network of workers with an image: "host": the host\'s; "bridge": one of their own, with an '
        "address on `bridge`.",
        restart=True,
    )
    bridge: Annotated[Text, AfterValidator(_link)] | None = written(
        None, description="An existing bridge of this host; its address is the workers' gateway.", restart=True
    )
    addresses: Annotated[Text, BeforeValidator(_addresses)] | None = written(
        None, description="Addresses for workers on the bridge, a part of its network.", restart=True
    )
    quota: ProcessQuotaSettings = written(
        {}, description="Upper limits over all machines of this cloud, here processes."
    )

    @model_validator(mode="after")
    def _bridged(self) -> Self:
        given = [key for key in ("bridge", "addresses") if getattr(self, key) is not None]
        if self.network == "host" and given:
            raise wrong(f'{given[0]} is given, but network is not "bridge"', 'network = "bridge", or remove it')
        if self.network == "bridge" and len(given) < 2:
            raise wrong(
                'network = "bridge" needs a bridge and addresses',
                'for example bridge = "br0", addresses = "10.99.0.0/24"',
            )
        return self


register_queue("pilot", PilotQueueSettings)
register_queue("aliec2", AliEC2QueueSettings)
register_cloud("process", ProcessCloudSettings)

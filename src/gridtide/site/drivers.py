"""``[queues.NAME]`` and ``[clouds.NAME]``: what all have in common, and the settings of the built-in drivers.

Settings are plain values: a driver takes them, this room never imports one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gridtide.model.ids import ShapeName
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
    Typed,
    written,
)
from gridtide.site.registry import register_cloud, register_queue
from gridtide.site.units import Duration, PositiveSize, Size


class QueueSettings(Typed):
    """What every queue has. A driver's settings add to it; they set ``type`` to a literal of their own."""

    noun: ClassVar[str] = "queue"
    only_one: ClassVar[bool] = False
    """Whether a site can have but one queue of this type."""


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

    def known_shapes(self) -> Collection[str] | None:
        """The names of all shapes, when the site file itself defines them; None when only the cloud can say."""
        return None


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


class ProcessCloudSettings(CloudSettings):
    """Workers are processes of this machine, each in a directory of its own. For trying out, tests and small sites."""

    type: Literal["process"] = Field(description="Workers are local processes.", json_schema_extra=RESTART)
    quota: ProcessQuotaSettings = written(
        {}, description="Upper limits over all machines of this cloud, here processes."
    )
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


register_queue("pilot", PilotQueueSettings)
register_queue("aliec2", AliEC2QueueSettings)
register_cloud("process", ProcessCloudSettings)

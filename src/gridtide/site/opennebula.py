"""``[clouds.NAME]`` with ``type = "opennebula"``: machines of a user of an OpenNebula cloud."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from gridtide.site.base import (
    RESTART,
    Count,
    File,
    PositiveCount,
    Price,
    ShapeKey,
    SiteModel,
    Text,
    check_endpoint,
    written,
)
from gridtide.site.drivers import CloudSettings
from gridtide.site.registry import register_cloud
from gridtide.site.units import Period, PositiveSize, wrong

_CLUSTER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}", re.ASCII)


def _endpoint(url: str) -> str:
    return check_endpoint(url, "https://one.example.org:2633/RPC2")


def _cluster(name: str) -> str:
    if not _CLUSTER.fullmatch(name):
        raise wrong(f"{name[:60]!r} cannot be a cluster's name", "letters, digits, spaces and any of . _ -, or its id")
    return name


Endpoint = Annotated[str, AfterValidator(_endpoint)]
Cluster = Annotated[str, AfterValidator(_cluster)]


class OpennebulaShapeSettings(SiteModel):
    """A template. What it has, it says itself, unless it is written here: then machines are made so."""

    template: Text | None = written(None, description="Name or id of the template. Left out: the name of the shape.")
    price: Price = written(0.0, description="Per hour; the cheapest shape that fits is taken.")
    cores: PositiveCount | None = written(None, description="Virtual cores. Left out: the template's.")
    memory: PositiveSize | None = written(None, description="Memory. Left out: the template's.")
    disk: PositiveSize | None = written(
        None, description="Size of the disk that has the image. Left out: the template's, or that of its image."
    )
    gpus: Count | None = written(None, description="GPUs. Left out: the display controllers of the template's PCI.")


class OpennebulaCloudSettings(CloudSettings):
    """Workers are machines of a user of an OpenNebula cloud."""

    user_data_limit: ClassVar[int | None] = 90_000

    type: Literal["opennebula"] = Field(
        description="Workers are machines of a user of an OpenNebula cloud.", json_schema_extra=RESTART
    )
    endpoint: Endpoint = Field(
        description='Address of the XML-RPC API, for example "https://one.example.org:2633/RPC2".',
        json_schema_extra=RESTART,
    )
    credentials: File = Field(
        description="File with `USER:PASSWORD` or `USER:TOKEN`, as `~/.one/one_auth`. Mode 600.",
        json_schema_extra=RESTART,
    )
    authority: File | None = written(
        None, description="File with certificates (PEM) that sign the endpoint's. Left out: those of the system."
    )
    shapes: Annotated[Mapping[ShapeKey, OpennebulaShapeSettings], Field(min_length=1)] = Field(
        description="The templates to use, by any name."
    )
    clusters: tuple[Cluster, ...] = written(
        (), description="Names or ids of clusters, in order of preference. Empty: as OpenNebula chooses."
    )
    networks: tuple[Text, ...] = written(
        (), description="Names or ids of virtual networks, in place of the template's. Empty: the template's."
    )
    placement: Period = written(
        "10 min", description="How long a machine may wait for a host before it counts as broken."
    )
    calls: Annotated[int, Field(strict=True, ge=1, le=64)] = written(
        4, description="How many launch calls, and how many terminate calls, may be under way at once."
    )
    timeout: Period = written("20 s", description="How long one call may take.")

    def known_shapes(self) -> Collection[str] | None:
        """Those of the table."""
        return self.shapes.keys()


register_cloud("opennebula", OpennebulaCloudSettings)

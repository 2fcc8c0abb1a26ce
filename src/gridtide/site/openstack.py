"""``[clouds.NAME]`` with ``type = "openstack"``: machines of an OpenStack project."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from gridtide.site.base import RESTART, Count, File, Price, ShapeKey, SiteModel, Text, written
from gridtide.site.drivers import CloudSettings
from gridtide.site.registry import register_cloud
from gridtide.site.units import Period, PositiveSize, wrong


def _networks(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(value, str) and value not in {"auto", "none"}:
        raise wrong(f"{value[:60]!r} is not a list of networks", f'["{value[:60]}"], "auto" or "none"')
    if value == ():
        raise wrong("is empty", '"none", if machines shall have no network')
    return value


def _tag_key(key: str) -> str:
    if not key or len(key) > 255 or key.startswith("gridtide:"):
        raise wrong(f"{key[:60]!r} cannot be metadata of yours", "at most 255 characters, not gridtide:")
    if not all(each.isascii() and (each.isalnum() or each in "-_:. ") for each in key):
        raise wrong(f"{key[:60]!r} cannot be metadata of yours", "letters, digits, spaces and any of - _ : .")
    return key


Networks = Annotated[str | tuple[Text, ...], AfterValidator(_networks)]
TagKey = Annotated[str, AfterValidator(_tag_key)]
TagValue = Annotated[str, Field(max_length=255)]


class OpenstackShapeSettings(SiteModel):
    """A flavour. What it has, the cloud says, unless it is written here."""

    price: Price = written(0.0, description="Per hour; the cheapest shape that fits is taken.")
    disk: PositiveSize | None = written(
        None, description="Disk for jobs. Left out: that of the volume, or of the flavour."
    )
    gpus: Count | None = written(None, description="GPUs. Left out: as far as the flavour's properties tell.")


class OpenstackVolumeSettings(SiteModel):
    """The volume that a machine boots from."""

    size: PositiveSize = Field(description="Its size; rounded up to whole GiB.")
    type: Text | None = written(None, description="Its volume type. Left out: the cloud's default.")


class OpenstackCloudSettings(CloudSettings):
    """Workers are machines of an OpenStack project."""

    user_data_limit: ClassVar[int | None] = 49_149

    type: Literal["openstack"] = Field(
        description="Workers are machines of an OpenStack project.", json_schema_extra=RESTART
    )
    profile: Text | None = written(
        None,
        description="Name of a section of clouds.yaml. Left out: as openstacksdk chooses (OS_CLOUD, OS_... variables).",
        restart=True,
    )
    clouds_file: File | None = written(
        None, description="clouds.yaml itself. Left out: where openstacksdk looks for it."
    )
    region: Text | None = written(None, description="The region. Left out: the one of clouds.yaml.", restart=True)
    project: Text | None = written(
        None,
        description="Name of the project. Left out: the one of clouds.yaml. An application credential has one already.",
        restart=True,
    )
    shapes: Mapping[ShapeKey, OpenstackShapeSettings] = written(
        {}, description="The flavours to use, by name. Empty: all that the project sees, without a price."
    )
    zones: tuple[Text, ...] = written(
        (), description="Availability zones, in order of preference. Empty: as Nova chooses."
    )
    networks: Networks = written(
        "auto",
        description='Names or ids of the networks of a machine; "auto": the only one that the project has; "none".',
    )
    security_groups: tuple[Text, ...] = written(
        (), description="Names of security groups. Empty: the project's default one."
    )
    key_pair: Text | None = written(None, description="Key pair for SSH. Left out: none.")
    server_group: Text | None = written(
        None, description="Name or id of a server group, for (anti-)affinity. Left out: none."
    )
    volume: OpenstackVolumeSettings | None = written(
        None, description="Boot from a new volume. Left out: from the image, on the host's own disk."
    )
    image_properties: Mapping[Text, Text] = written(
        {}, description="Properties that an image must have, beside the name that the group gives."
    )
    config_drive: bool = written(
        False, description="Attach user-data as a drive, for clouds without a metadata service."
    )
    tags: Mapping[TagKey, TagValue] = written({}, description="More metadata for machines.")
    calls: Annotated[int, Field(strict=True, ge=1, le=64)] = written(
        8, description="How many launch calls, and how many terminate calls, may be under way at once."
    )
    timeout: Period = written("20 s", description="How long one call may stay without an answer.")

    def known_shapes(self) -> Collection[str] | None:
        """Those of the table; None where the cloud is asked."""
        return self.shapes.keys() or None


register_cloud("openstack", OpenstackCloudSettings)

"""``[clouds.NAME]`` with ``type = "ec2"``: machines of Amazon EC2, or of an endpoint that speaks its API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, ClassVar, Literal

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


def _endpoint(url: str) -> str:
    return check_endpoint(url, "https://ec2.example.org").rstrip("/")


def _tag_key(key: str) -> str:
    if not key or len(key) > 128 or key.startswith(("aws:", "gridtide:")) or key == "Name":
        raise wrong(f"{key[:60]!r} cannot be a tag of yours", "at most 128 characters, not Name, aws: or gridtide:")
    return key


Endpoint = Annotated[str, AfterValidator(_endpoint)]
TagKey = Annotated[str, AfterValidator(_tag_key)]
TagValue = Annotated[str, Field(max_length=256)]
Positive = Annotated[float, Field(gt=0, le=10_000)]


class Ec2ShapeSettings(SiteModel):
    """An instance type. What it has is asked of the cloud, unless it is written here."""

    price: Price = written(
        0.0, description="Per hour; the cheapest shape that fits is taken. In the spot market also the most to pay."
    )
    disk: PositiveSize = written("20 GiB", description="Size of the root volume, if the image's is not larger.")
    cores: PositiveCount | None = written(None, description="Cores. Left out: the cloud is asked.")
    memory: PositiveSize | None = written(None, description="Memory. Left out: the cloud is asked.")
    gpus: Count | None = written(None, description="GPUs. Left out: the cloud is asked.")


class Ec2RateSettings(SiteModel):
    """How often one kind of call may be made."""

    burst: Positive = Field(description="Calls that may be made at once.")
    per_second: Positive = Field(description="Calls per second in the long run.")


class Ec2RatesSettings(SiteModel):
    """The rates of the account. Defaults: those that EC2 documents for every account."""

    launch: Ec2RateSettings = written({"burst": 5, "per_second": 2}, description="RunInstances: one call per machine.")
    terminate: Ec2RateSettings = written(
        {"burst": 100, "per_second": 5}, description="TerminateInstances: up to 500 machines in a call."
    )
    read: Ec2RateSettings = written(
        {"burst": 100, "per_second": 20}, description="Listings: up to 1000 machines in a call."
    )


class Ec2CloudSettings(CloudSettings):
    """Workers are machines of Amazon EC2, or of an endpoint that speaks its API."""

    user_data_limit: ClassVar[int | None] = 16_384

    type: Literal["ec2"] = Field(description="Workers are machines of EC2.", json_schema_extra=RESTART)
    region: Text = Field(description='The region, for example "eu-south-1".', json_schema_extra=RESTART)
    endpoint: Endpoint | None = written(
        None, description="Address of the API, for clouds that are not Amazon's. Left out: the region's.", restart=True
    )
    profile: Text | None = written(
        None, description="Profile of boto3's configuration. Left out: credentials as boto3 finds them."
    )
    credentials: File | None = written(None, description="File with credentials, in the form of `~/.aws/credentials`.")
    shapes: Annotated[Mapping[ShapeKey, Ec2ShapeSettings], Field(min_length=1)] = Field(
        description="The instance types to use, by name."
    )
    zones: tuple[Text, ...] = written(
        (),
        description="Availability zones, or ids of subnets, in order of preference. Empty: the account's default.",
    )
    market: Literal["on-demand", "spot"] = written(
        "on-demand", description='"spot": cheaper machines that EC2 takes back at two minutes\' notice.'
    )
    launch_template: Text | None = written(
        None, description="Name or id of a launch template, with `:VERSION` if not its default."
    )
    key_pair: Text | None = written(None, description="Key pair for SSH. Left out: none.")
    security_groups: tuple[Text, ...] = written((), description="Ids of security groups. Empty: the default one.")
    instance_profile: Text | None = written(
        None, description="Name of an instance profile, for jobs that use AWS. Left out: none."
    )
    volume_type: Text | None = written(
        None, description='Type of the root volume, for example "gp3". Left out: the image\'s.'
    )
    tags: Mapping[TagKey, TagValue] = written({}, description="More tags for machines and volumes.")
    rates: Ec2RatesSettings = written({}, description="How often the API may be called.")
    timeout: Period = written("10 s", description="How long one call may stay without an answer.")

    def known_shapes(self) -> Collection[str] | None:
        """Those of the table."""
        return self.shapes.keys()


register_cloud("ec2", Ec2CloudSettings)

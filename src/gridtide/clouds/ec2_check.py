"""What ``gridtide check`` finds out about an EC2 cloud. Changes nothing, raises nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ClientError

from gridtide.clouds.ec2_api import Kind
from gridtide.clouds.ec2_machine import InstanceType
from gridtide.clouds.protocol import Finding, LaunchRequest, Level
from gridtide.errors import CloudError
from gridtide.model.ids import GroupName, MachineId, WorkerId

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import RunInstancesRequestTypeDef

    from gridtide.clouds.ec2 import Ec2Cloud

SOON: Final = timedelta(days=8)
"""Credentials that expire within this are warned of: a week, and a day to act on it."""

_RENEW: Final = "renew them before that"
_COMPATIBLE: Final = "what an endpoint must heed is in docs/how-to/use-ec2.md"


async def findings(cloud: Ec2Cloud, images: Sequence[str], until: float) -> tuple[Finding, ...]:
    """In the order in which one would mend."""
    try:
        found = [await cloud.credentials()]
    except CloudError as error:
        return (Finding("credentials", Level.ERROR, error.what, error.remedy),)
    if found[0].level is Level.ERROR:
        return tuple(found)
    try:
        number = len(await cloud.machines())
    except CloudError as error:
        return (*found, Finding("connection", Level.ERROR, str(error), error.remedy))
    found.append(Finding("connection", Level.OK, f"{cloud.where} answers and lists {number} machines"))
    found += await _shapes(cloud)
    for name in dict.fromkeys(images):
        try:
            image = await cloud.images.find(name, until)
        except CloudError as error:
            found.append(Finding(f"image {name}", Level.ERROR, error.what, error.remedy))
            continue
        found.append(Finding(f"image {name}", Level.OK, f"{image['ImageId']} of {image.get('CreationDate', '?')}"))
        found.append(await _rehearsal(cloud, name, until))
    if not images and cloud.settings.launch_template:
        found.append(await _rehearsal(cloud, None, until))
    return tuple(found)


def credentials(found: Credentials | None, now: datetime) -> Finding:
    """Whose they are is not shown, nor any part of them."""
    if found is None:
        return Finding(
            "credentials", Level.ERROR, "boto3 finds none", "set profile or credentials of the cloud, or AWS_PROFILE"
        )
    how = f"by {found.method}"
    if isinstance(found, RefreshableCredentials):
        ends = getattr(found, "_expiry_time", None)
        if found.method != "env" or not isinstance(ends, datetime):
            return Finding("credentials", Level.OK, f"{how}; they renew themselves")
        left = ends - now
        text = f"{how}; they expire on {ends:%Y-%m-%d at %H:%M} UTC"
        return (
            Finding("credentials", Level.WARNING, text, _RENEW)
            if left <= SOON
            else Finding("credentials", Level.OK, text)
        )
    if found.token:
        text = f"{how}; they are temporary, and do not say when they expire (36 hours at most)"
        return Finding("credentials", Level.WARNING, text, "use a role or a profile that renews itself")
    return Finding("credentials", Level.OK, f"{how}; they do not expire")


async def _shapes(cloud: Ec2Cloud) -> list[Finding]:
    try:
        known = {shape.name: shape for shape in await cloud.shapes()}
    except CloudError as error:
        return [Finding("shapes", Level.ERROR, str(error), "give cores and memory of each shape in the site file")]
    found = []
    for kind in cloud.settings.types:
        subject = f"shape {kind.name}"
        if kind.name not in known:
            remedy = "check its name, or give its cores and memory"
            found.append(Finding(subject, Level.ERROR, "the cloud has no such instance type", remedy))
        else:
            price = f"{kind.price:g} per hour" if kind.price else "no price"
            found.append(Finding(subject, Level.OK, f"{known[kind.name].resources}, {price}"))
    return found


async def _rehearsal(cloud: Ec2Cloud, name: str | None, until: float) -> Finding:
    """EC2 judges the whole request, and the right to make it, and makes nothing. No name: the template's image."""
    kind: InstanceType = cloud.settings.types[0]
    request = LaunchRequest(WorkerId("check"), GroupName("check"), kind.name, None, name, b"#cloud-config\n{}\n")
    subject = f"launch of {name or cloud.settings.launch_template}"
    try:
        wanted = await cloud.parameters(request, kind, until)
        wanted["DryRun"] = True
        made = await cloud.api.call(Kind.READ, lambda client: _rehearse(client, wanted), until)
    except CloudError as error:
        return Finding(subject, Level.ERROR, error.what, error.remedy or (_COMPATIBLE if cloud.foreign else ""))
    if made is not None:
        left = (await cloud.terminate([made]))[made]
        end = "and it was ended again" if left is None else f"and it could not be ended: {left}"
        text = f"the endpoint does not heed DryRun: a machine {made} was made, {end}"
        return Finding(subject, Level.ERROR, text, _COMPATIBLE)
    return Finding(subject, Level.OK, f"{kind.name} would be launched, says a rehearsal")


def _rehearse(client: EC2Client, wanted: RunInstancesRequestTypeDef) -> MachineId | None:
    """The machine that was made after all, if one was."""
    try:
        return MachineId(client.run_instances(**wanted)["Instances"][0]["InstanceId"])
    except ClientError as answer:
        if answer.response.get("Error", {}).get("Code") != "DryRunOperation":
            raise
    return None

"""What the EC2 driver makes of ec2-api as it comes: docs/how-to/use-ec2.md says what it lacks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.protocol import LaunchRequest, Level
from gridtide.errors import AuthenticationFailed, CloudUnavailable
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId
from tests.long.ec2api.endpoint import Tenant
from tests.real.openstack.inside.plane import IMAGE
from tests.real.openstack.project import until

W = WorkerId("grid-1")
REQUEST = LaunchRequest(W, GroupName("grid"), ShapeName("tiny"), None, IMAGE, b"#cloud-config\n")


@pytest.fixture
async def cloud(plain_tenant: Tenant) -> AsyncIterator[Ec2Cloud]:
    made = plain_tenant.cloud()
    yield made
    await made.close()


async def test_a_launch_is_never_taken_for_made_nor_for_refused(
    monkeypatch: pytest.MonkeyPatch, plain_tenant: Tenant, cloud: Ec2Cloud
) -> None:
    """It answers 500 to a parameter that it does not know, which says nothing: the listing tells that none is there."""
    monkeypatch.setattr("gridtide.clouds.ec2.LAUNCH_PATIENCE", 45.0)
    answer = (await cloud.launch([REQUEST]))[W]
    assert isinstance(answer, CloudUnavailable)
    assert "TypeError" in str(answer)
    assert await cloud.machines() == ()
    assert not await asyncio.to_thread(plain_tenant.project.servers)


async def test_check_tells_before_anything_is_launched(plain_tenant: Tenant, cloud: Ec2Cloud) -> None:
    findings = {each.subject: each for each in await cloud.check([IMAGE])}
    assert findings["connection"].level is findings[f"image {IMAGE}"].level is Level.OK
    wrong = findings[f"launch of {IMAGE}"]
    assert wrong.level is Level.ERROR
    assert "use-ec2" in wrong.remedy
    assert not await asyncio.to_thread(plain_tenant.project.servers)


@pytest.mark.parametrize(
    "lacking",
    [
        {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]},
        {"MetadataOptions": {"HttpTokens": "required"}},
        {"DryRun": True},
    ],
    ids=lambda each: str(*each),
)
async def test_what_it_lacks(plain_tenant: Tenant, lacking: dict[str, Any]) -> None:
    """So that the how-to stays true: a later ec2-api may do more."""
    with pytest.raises(ClientError, match="TypeError"):
        await asyncio.to_thread(lambda: plain_tenant.run(**lacking))


async def test_what_it_has(plain_tenant: Tenant) -> None:
    made = [await asyncio.to_thread(lambda: plain_tenant.run(ClientToken="one")) for _ in range(2)]
    assert made[0] == made[1], "it knows a client token again"


async def test_machines_of_others_are_listed_page_by_page_and_ended_by_their_ids(
    plain_tenant: Tenant, cloud: Ec2Cloud
) -> None:
    ids = set(await asyncio.to_thread(lambda: plain_tenant.run(6)))
    found = await cloud.machines()
    assert {each.id for each in found} == ids
    assert {each.worker for each in found} == {None}
    assert {each.resources.cores for each in found} == {1}, "the site file knows the type"
    gone = MachineId("i-0123456789abcdef0")
    assert await cloud.terminate([*ids, gone]) == dict.fromkeys([*ids, gone])
    await asyncio.to_thread(until, lambda: not any(map(plain_tenant.state, ids)), "they do not end", 240.0)
    assert await cloud.machines() == ()


async def test_wrong_keys(plain_tenant: Tenant) -> None:
    cloud = plain_tenant.cloud(secret="wrong")
    with pytest.raises(AuthenticationFailed):
        await cloud.machines()
    assert isinstance((await cloud.launch([REQUEST]))[W], AuthenticationFailed)
    await cloud.close()

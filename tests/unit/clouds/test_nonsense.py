"""Answers with something wrong in one place: whatever a cloud says, nothing but a CloudError leaves a driver."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_api import Access as Ec2Access
from gridtide.clouds.ec2_api import Kind
from gridtide.clouds.ec2_machine import Ec2Settings, InstanceType
from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_api import Access, LogIn, Service
from gridtide.clouds.openstack_errors import failures, typed
from gridtide.clouds.openstack_machine import FlavorChoice, Json, OpenstackSettings
from gridtide.clouds.protocol import Cloud, LaunchRequest
from gridtide.errors import CloudError
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.sim import virtual_time

T = TypeVar("T")

OURS = {"gridtide:site": "torino/private", "gridtide:worker": "grid-1"}
ID = "70a599e0-31e7-49b7-b260-868f441e862b"
JUNK: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 10**30, 1.5, "", "x", [], [None], [[]], {}, {"id": None}, {"x": "y"}]
)


def places(document: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Of everything in it."""
    inner: list[tuple[object, object]] = []
    if isinstance(document, dict):
        inner = list(document.items())
    elif isinstance(document, list):
        inner = list(enumerate(document))
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


@st.composite
def spoilt(draw: st.DrawFn, document: Any, *, typed: bool = False) -> Any:
    """One thing of it is another, or missing. ``typed``: strings and lists stay such, as a parser makes them."""
    document = copy.deepcopy(document)
    place = draw(st.sampled_from([each for each in places(document) if each]))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    before = inner[place[-1]]
    if draw(st.booleans()):
        del inner[place[-1]]
    elif not typed:
        inner[place[-1]] = draw(JUNK)
    elif isinstance(before, str | list):
        inner[place[-1]] = [] if isinstance(before, list) else draw(st.sampled_from(["", "x"]))
    return document


async def everything(cloud: Cloud, more: list[Callable[[], Coroutine[Any, Any, object]]]) -> None:
    """Each call of the protocol: it answers what it promises, or raises a CloudError."""
    request = LaunchRequest(WorkerId("grid-2"), GroupName("grid"), ShapeName("tiny"), None, "worker", b"secret")
    for call in (cloud.shapes, cloud.machines, *more):
        with contextlib.suppress(CloudError):
            await call()
    for answer in (await cloud.launch([request])).values():
        assert isinstance(answer, str | CloudError)
    for ended in (await cloud.terminate([MachineId(ID), MachineId("i-0123456789abcdef0")])).values():
        assert ended is None or isinstance(ended, CloudError)
    assert await cloud.check(["worker"])


# --- OpenStack

SERVER = {
    "id": ID,
    "name": "grid-1",
    "status": "ERROR",
    "metadata": OURS,
    "flavor": {"vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0},
    "fault": {"message": "No valid host was found."},
    "OS-EXT-STS:task_state": None,
    "OS-EXT-AZ:availability_zone": "nova",
    "os-extended-volumes:volumes_attached": [{"id": "v1", "delete_on_termination": True}],
}
FLAVOR = {
    "id": "1",
    "name": "tiny",
    "vcpus": 1,
    "ram": 512,
    "disk": 1,
    "OS-FLV-EXT-DATA:ephemeral": 0,
    "extra_specs": {},
}
LIMITS = {"maxTotalCores": 9, "maxTotalRAMSize": 9000, "maxTotalInstances": 9}
GOOD: dict[str, Any] = {
    "GET /servers/detail": {"servers": [SERVER]},
    "GET /servers/ID": {"server": SERVER},
    "GET /flavors/detail": {"flavors": [FLAVOR]},
    "GET /limits": {"limits": {"absolute": LIMITS}},
    "GET /os-server-groups": {"server_groups": [{"id": "g1", "name": "apart"}]},
    "GET /os-keypairs/mine": {"keypair": {"name": "mine"}},
    "GET /os-availability-zone": {"availabilityZoneInfo": [{"zoneName": "nova", "zoneState": {"available": True}}]},
    "GET /images": {"images": [{"id": "image", "created_at": "2026-01-01", "status": "active"}]},
    "GET /v2.0/networks": {"networks": [{"id": "network"}]},
    "GET /volumes/detail": {"volumes": [{"id": "v1", "status": "available"}]},
    "POST /servers": {"server": {"id": ID}},
    "POST /servers/ID/action": {"output": "text"},
    "DELETE /servers/ID": {},
    "DELETE /volumes/v1": {},
    "keystone": {"application_credential": {"expires_at": "2027-11-30T00:00:00.000000"}},
}


class Nova(OpenstackCloud):
    """Whose services answer from a table."""

    def __init__(self, answers: dict[str, Any]) -> None:
        settings = OpenstackSettings(
            flavors=(FlavorChoice(ShapeName("tiny")),),
            zones=(Zone("nova"),),
            networks=("private",),
            server_group="apart",
            key_pair="mine",
        )
        super().__init__(CloudName("private"), "torino", Access("torino"), settings)
        self.answers = answers
        self.api.call = self._answer  # type: ignore[method-assign]
        self.api.log_in = self._log_in  # type: ignore[method-assign]
        self.api.ask_keystone = self._keystone  # type: ignore[method-assign]
        self.api.microversion = self._microversion  # type: ignore[method-assign]

    async def _answer(self, service: Service, method: str, path: str, until: float, *, body: object = None) -> Json:
        name = f"{method} {path.partition('?')[0].replace(ID, 'ID')}"
        if asyncio.get_running_loop().time() > until:
            raise typed(TimeoutError("no answer in time"), self.where)
        return self._object(self.answers[name])

    async def _log_in(self, until: float) -> LogIn:
        return LogIn("http://127.0.0.1:5000/v3", "user", "credential")

    async def _keystone(self, path: str, until: float) -> Json:
        return self._object(self.answers["keystone"])

    async def _microversion(self, until: float) -> str:
        return "2.69"

    def _object(self, answer: object) -> Json:
        """As the real one looks at it."""
        try:
            if not isinstance(answer, dict):
                raise TypeError("not a JSON object")
        except failures() as error:
            raise typed(error, self.where) from error
        return answer


@pytest.mark.parametrize("call", [call for call, answer in GOOD.items() if answer])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_openstack(call: str, data: st.DataObject) -> None:
    answers = {**GOOD, call: data.draw(spoilt(GOOD[call]))}

    async def main() -> None:
        cloud = Nova(answers)
        console = lambda: cloud.console(MachineId(ID), most=10)  # noqa: E731
        await everything(cloud, [cloud.quota, cloud.credentials, console])
        cloud._volumes.ended(MachineId(ID))
        answers["GET /servers/detail"] = {"servers": []}  # its machine is gone: its volumes are looked at
        await cloud.machines()
        await cloud.close()

    virtual_time.run(main())


def test_openstack_in_good_order() -> None:
    """Else the others would show nothing."""

    async def main() -> None:
        cloud = Nova(dict(GOOD))
        assert [each.worker for each in await cloud.machines()] == ["grid-1"]
        assert all(each.level != "error" for each in await cloud.check(["worker"]))
        await cloud.close()

    virtual_time.run(main())


# --- EC2

INSTANCE = {
    "InstanceId": "i-0123456789abcdef0",
    "InstanceType": "tiny",
    "State": {"Name": "running"},
    "Tags": [{"Key": "gridtide:site", "Value": "torino/burst"}, {"Key": "gridtide:worker", "Value": "grid-1"}],
    "Placement": {"AvailabilityZone": "a"},
    "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 2},
    "InstanceLifecycle": "spot",
    "StateReason": {"Message": "no reason"},
}
EBS = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}
ANSWERS: dict[str, Any] = {
    "describe_instances": {"Reservations": [{"Instances": [INSTANCE]}]},
    "describe_instance_types": {
        "InstanceTypes": [
            {
                "InstanceType": "tiny",
                "VCpuInfo": {"DefaultVCpus": 2},
                "MemoryInfo": {"SizeInMiB": 512},
                "GpuInfo": {"Gpus": [{"Count": 1}]},
            }
        ]
    },
    "describe_images": {
        "Images": [
            {
                "ImageId": "ami-1",
                "State": "available",
                "CreationDate": "2026",
                "RootDeviceName": "/dev/xvda",
                "BlockDeviceMappings": [EBS],
            }
        ]
    },
    "describe_launch_template_versions": {
        "LaunchTemplateVersions": [{"LaunchTemplateData": {"ImageId": "ami-1", "BlockDeviceMappings": [EBS]}}]
    },
    "describe_spot_instance_requests": {
        "SpotInstanceRequests": [
            {"InstanceId": "i-0123456789abcdef0", "Status": {"Code": "marked-for-stop", "Message": "soon"}}
        ]
    },
    "run_instances": {"Instances": [{"InstanceId": "i-0123456789abcdef1"}]},
    "terminate_instances": {"TerminatingInstances": []},
    "get_console_output": {"Output": "text"},
}


class Client:
    """A client of boto3 that answers from a table."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **_: self._answers[name]


def ec2(answers: dict[str, Any]) -> Ec2Cloud:
    types = (InstanceType(ShapeName("tiny"), price=0.1),)
    cloud = Ec2Cloud(
        CloudName("burst"), "torino", Ec2Access("eu-south-1"), Ec2Settings(types, spot=True, launch_template="worker")
    )
    client: Any = Client(answers)

    async def call(kind: Kind, ask: Callable[[Any], T], until: float) -> T:
        return cloud.api._guarded(lambda: ask(client))

    async def credentials() -> None:
        return None

    cloud.api.call = call  # type: ignore[method-assign]
    cloud.api.credentials = credentials  # type: ignore[method-assign]
    return cloud


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_ec2(name: str, data: st.DataObject) -> None:
    """botocore's parser takes care of types; what it cannot is what is missing, and what it lets pass."""
    answers = {**ANSWERS, name: data.draw(spoilt(ANSWERS[name], typed=True))}

    async def main() -> None:
        cloud = ec2(answers)
        console = lambda: cloud.console(MachineId("i-0123456789abcdef0"), most=10)  # noqa: E731
        await everything(cloud, [cloud.credentials, console])
        await cloud.close()

    virtual_time.run(main())


def test_ec2_in_good_order() -> None:
    """Else the others would show nothing."""

    async def main() -> None:
        cloud = ec2(dict(ANSWERS))
        assert [(each.worker, each.notice) for each in await cloud.machines()] == [("grid-1", "soon")]
        request = LaunchRequest(WorkerId("grid-2"), GroupName("grid"), ShapeName("tiny"), None, None, b"secret")
        await cloud.shapes()
        assert await cloud.launch([request]) == {"grid-2": "i-0123456789abcdef1"}
        await cloud.close()

    virtual_time.run(main())


def test_credentials_without_a_date_that_can_be_read() -> None:
    async def main() -> None:
        answers = {**GOOD, "keystone": {"application_credential": {"expires_at": "soon"}}}
        cloud = Nova(answers)
        with pytest.raises(CloudError):
            await cloud.credentials()
        assert any(each.subject == "credentials" for each in await cloud.check([]))
        await cloud.close()

    virtual_time.run(main())

"""An EC2 account for tests: moto in server mode, emptied for each test, and what tests do in it beside the driver."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
import httpx

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_api import Access
from gridtide.clouds.ec2_machine import Ec2Settings, InstanceType
from gridtide.clouds.ec2_rate import Rate, Rates
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from gridtide.testing.fault_proxy import Answer

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

T = TypeVar("T")

REGION: Final = "eu-south-1"
IMAGE: Final = "worker-2026.11"
CREDENTIALS: Final = "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"

FAST: Final = Rates(Rate(1000, 1000), Rate(1000, 1000), Rate(1000, 1000))
"""moto has no limits, and tests have no time."""
SETTINGS: Final = Ec2Settings(
    types=(InstanceType(ShapeName("m5.large"), price=0.1), InstanceType(ShapeName("c5.xlarge"), price=0.2)),
    rates=FAST,
    page=5,
)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The address of a server in a process of its own, which ends with this one whatever happens."""
    with tempfile.TemporaryDirectory(prefix="gridtide-moto-") as directory:
        told = Path(directory) / "address"
        images = Path(directory) / "images.json"
        images.write_text("[]")  # moto's own ones take a tenth of a second in each test
        command = [sys.executable, "-m", "tests.real.ec2.moto_server", str(told)]
        with open(Path(directory) / "log", "wb") as log:
            environment = {**os.environ, "MOTO_AMIS_PATH": str(images)}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        try:
            end = time.monotonic() + 60.0
            while not told.exists():
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"moto did not start: {(Path(directory) / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            yield told.read_text()
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Account:
    """Of one test. ``address``: of the server itself, not of a proxy before it."""

    address: str
    directory: Path

    def access(self, endpoint: str | None = None, timeout: float = 10.0) -> Access:
        """For a driver."""
        credentials = self.directory / "credentials"
        credentials.write_text(CREDENTIALS)
        return Access(REGION, endpoint or self.address, credentials=credentials, timeout=timeout)

    def cloud(
        self,
        settings: Ec2Settings = SETTINGS,
        *,
        site: str = "torino",
        name: str = "burst",
        endpoint: str | None = None,
        timeout: float = 10.0,
    ) -> Ec2Cloud:
        """A driver object that knows nothing yet."""
        return Ec2Cloud(CloudName(name), site, self.access(endpoint, timeout), settings, settle=0.0)

    @property
    def client(self) -> EC2Client:
        """For what the administrator of the account does."""
        return _client(self.address)

    async def admin(self, ask: Callable[[EC2Client], T]) -> T:
        """In a thread."""
        return await asyncio.to_thread(ask, self.client)

    def empty(self) -> None:
        """Nothing is left but an image."""
        httpx.post(f"{self.address}/moto-api/reset", timeout=30.0, verify=False).raise_for_status()  # noqa: S501 - plain HTTP
        self.client.register_image(
            Name=IMAGE,
            RootDeviceName="/dev/xvda",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4, "DeleteOnTermination": False}}],
        )

    def instances(self) -> list[InstanceTypeDef]:
        """All that live, as the account itself has them."""
        pages = self.client.get_paginator("describe_instances").paginate()
        every = [each for page in pages for found in page["Reservations"] for each in found["Instances"]]
        return [each for each in every if each["State"]["Name"] not in {"terminated", "shutting-down"}]

    def volumes(self) -> int:
        """That exist."""
        return len(self.client.describe_volumes()["Volumes"])

    async def add_foreign(self) -> MachineId:
        """A machine of somebody else, with a tag of another site."""
        other = self.cloud(site="milano")
        answers = await other.launch([request("theirs")])
        await other.close()
        machine = answers[WorkerId("theirs")]
        assert isinstance(machine, str)
        return MachineId(machine)


@cache
def _client(address: str) -> EC2Client:
    session = boto3.session.Session("testing", "testing", region_name=REGION)
    return session.client("ec2", endpoint_url=address)


def request(worker: str, user_data: bytes = b"#cloud-config\n", shape: str = "m5.large") -> LaunchRequest:
    """For one machine."""
    return LaunchRequest(WorkerId(worker), GroupName("grid"), ShapeName(shape), None, IMAGE, user_data)


def refusal(code: str, status: int = 400, message: str = "no", **headers: str) -> Answer:
    """How EC2 words one."""
    text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
    return Answer(status, text.encode(), {"content-type": "text/xml", **headers})


def with_types(**more: object) -> Ec2Settings:
    """The settings of the tests, changed."""
    return replace(SETTINGS, **more)  # type: ignore[arg-type]

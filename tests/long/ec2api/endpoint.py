"""A second EC2 endpoint: OpenStack's own, ec2-api 17, in front of the control plane of the tests.

It is not in Debian. Its packages are installed once per machine, in an environment of their own, with fixed versions.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_api import Access
from gridtide.clouds.ec2_machine import Ec2Settings, InstanceType
from gridtide.model.ids import CloudName, MachineId, ShapeName
from tests.real.ec2.account import FAST
from tests.real.openstack.control_plane import kept
from tests.real.openstack.inside.plane import IMAGE, PASSWORD, PORTS
from tests.real.openstack.project import Project, User, new_project

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

HERE: Final = Path(__file__).parent
PACKAGES: Final = HERE / "packages.txt"
REGION: Final = "RegionOne"
SETTINGS: Final = Ec2Settings(
    (InstanceType(ShapeName("tiny"), price=0.1, disk=1024, cores=1, memory=512),), rates=FAST, page=5
)
"""Small pages, so that few machines make several."""


@contextlib.contextmanager
def ec2_api(plane: str, directory: Path, *, completed: bool) -> Iterator[str]:
    """The address of one that is up, for the control plane at ``plane``. ``completed``: see inside/serve.py."""
    environment = kept("ec2-api", [PACKAGES.read_text(), sys.version], _install)
    with socket.socket() as probe:
        probe.bind((plane, 0))
        port = probe.getsockname()[1]
    keystone = f"http://{plane}:{PORTS['keystone']}"
    (directory / "paste.ini").write_text(_PASTE)
    (directory / "ec2api.conf").write_text(_configuration(plane, port, keystone, directory))
    log = directory / "ec2api.log"
    program = (environment / "bin/python", HERE / "inside/serve.py")
    command = (*program, directory / "ec2api.conf", keystone, PASSWORD, *(("completed",) if completed else ()))
    alone = ("setpriv", "--pdeathsig", "KILL")
    with log.open("wb") as output:
        process = subprocess.Popen((*alone, *command), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_for(plane, port, process, log)
        yield f"http://{plane}:{port}"
    finally:
        process.kill()
        process.wait()


def _install(place: Path) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    for command in (
        (sys.executable, "-m", "venv", str(place)),
        (str(place / "bin/python"), "-m", "pip", "install", *quiet, "--no-deps", "-r", str(PACKAGES)),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"ec2-api cannot be installed: {done.stderr[-2000:]}"
    shutil.rmtree(place / "share", ignore_errors=True)


def _wait_for(address: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120.0
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 5.0):
            return
        assert process.poll() is None, f"ec2-api does not start: {log.read_text()[-2000:]}"
        assert time.monotonic() < end, f"ec2-api does not listen: {log.read_text()[-2000:]}"
        time.sleep(0.1)


def _configuration(plane: str, port: int, keystone: str, directory: Path) -> str:
    return f"""
[DEFAULT]
my_ip = {plane}
ec2_host = {plane}
ec2api_listen = {plane}
ec2api_listen_port = {port}
ec2api_workers = 1
api_paste_config = {directory}/paste.ini
keystone_ec2_tokens_url = {keystone}/v3/ec2tokens
keystone_url = {keystone}/v3
full_vpc_support = false
state_path = {directory}
[database]
connection = sqlite:///{directory}/ec2api.sqlite
[oslo_concurrency]
lock_path = {directory}
[keystone_authtoken]
auth_url = {keystone}/v3
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = nova
password = {PASSWORD}
region_name = {REGION}
"""


@dataclass(frozen=True)
class Tenant:
    """A project of OpenStack's with EC2 credentials. ``address``: of the endpoint."""

    address: str
    project: Project
    keys: Mapping[str, str] = field(repr=False)

    def cloud(self, *, endpoint: str | None = None, secret: str | None = None, timeout: float = 200.0) -> Ec2Cloud:
        """A driver object that knows nothing yet. The site file says what types have: ec2-api cannot be asked."""
        file = self.project.directory / f"keys-{secrets.token_hex(4)}"
        key = f"aws_access_key_id = {self.keys['access']}\naws_secret_access_key = {secret or self.keys['secret']}\n"
        file.write_text(f"[default]\n{key}")
        access = Access(REGION, endpoint or self.address, credentials=file, timeout=timeout)
        return Ec2Cloud(CloudName("burst"), "torino", access, SETTINGS, settle=0.0)

    @property
    def client(self) -> EC2Client:
        """For what is asked of the endpoint beside the driver."""
        session = boto3.session.Session(self.keys["access"], self.keys["secret"], region_name=REGION)
        once = Config(read_timeout=300, retries={"total_max_attempts": 1})
        return session.client("ec2", endpoint_url=self.address, config=once)

    def run(self, number: int = 1, **more: Any) -> list[MachineId]:
        """Machines that are not the driver's; ``more`` for the call. botocore's ClientError for a refusal."""
        client = self.client
        image = client.describe_images(Filters=[{"Name": "name", "Values": [IMAGE]}])["Images"][0]["ImageId"]
        wanted: dict[str, Any] = {"ImageId": image, "InstanceType": "tiny", "MinCount": number, "MaxCount": number}
        return [MachineId(each["InstanceId"]) for each in client.run_instances(**wanted, **more)["Instances"]]

    def state(self, machine: MachineId) -> str:
        """The endpoint's word; "" when it does not list it."""
        wanted: Any = [{"Name": "instance-id", "Values": [machine]}]
        found = self.client.describe_instances(Filters=wanted)["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"]) if found else ""


def new_tenant(address: str, administrator: User, directory: Path) -> Tenant:
    """With a network of its own, which ec2-api puts machines in."""
    project = new_project(administrator, directory)
    owner = project.owner
    network = owner.call("neutron", "POST", "/v2.0/networks", {"network": {"name": "classic"}})["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24", "enable_dhcp": False}
    owner.call("neutron", "POST", "/v2.0/subnets", {"subnet": subnet})
    path = f"/v3/users/{owner.id}/credentials/OS-EC2"
    keys = owner.call("keystone", "POST", path, {"tenant_id": owner.project_id})["credential"]
    return Tenant(address, project, {"access": keys["access"], "secret": keys["secret"]})


_PASTE: Final = """
[composite:ec2api]
use = egg:Paste#urlmap
/: ec2apicloud
[composite:ec2apicloud]
use = call:ec2api.api.auth:pipeline_factory
keystone = fault log auth request executor
[filter:fault]
paste.filter_factory = ec2api.api:FaultWrapper.factory
[filter:log]
paste.filter_factory = ec2api.api:RequestLogging.factory
[filter:auth]
paste.filter_factory = ec2api.api:EC2KeystoneAuth.factory
[filter:request]
paste.filter_factory = ec2api.api:Requestify.factory
[app:executor]
paste.app_factory = ec2api.api:Executor.factory
"""

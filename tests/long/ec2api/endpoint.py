"""A second EC2 endpoint: OpenStack's own, ec2-api 17, in front of the control plane of the tests.

It is not in Debian. Its packages are installed once per machine, in an environment of their own, with fixed versions.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.real.openstack.control_plane import kept
from tests.real.openstack.inside.plane import PASSWORD, PORTS

HERE: Final = Path(__file__).parent
PACKAGES: Final = HERE / "packages.txt"
REGION: Final = "RegionOne"


@contextlib.contextmanager
def ec2_api(plane: str, directory: Path) -> Iterator[str]:
    """The address of one that is up, for the control plane at ``plane``."""
    environment = kept("ec2-api", [PACKAGES.read_text(), sys.version], _install)
    with socket.socket() as probe:
        probe.bind((plane, 0))
        port = probe.getsockname()[1]
    keystone = f"http://{plane}:{PORTS['keystone']}"
    (directory / "paste.ini").write_text(_PASTE)
    (directory / "ec2api.conf").write_text(_configuration(plane, port, keystone, directory))
    log = directory / "ec2api.log"
    command = (environment / "bin/python", HERE / "inside/serve.py", directory / "ec2api.conf", keystone, PASSWORD)
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

"""ec2-api for a test: ``python serve.py CONFIGURATION KEYSTONE PASSWORD [completed]``, in an environment of its own.

Some things are put right that are no part of what is tested. Its tables are made at once (the migrations want
MySQL). Keystone, since a security update, takes the signature of a request from a service alone, and ec2-api does not
say that it is one. And the control plane has neither block storage nor routers, which ec2-api asks for the volumes and
floating addresses of every machine.

``completed`` adds to its RunInstances what EC2 promises and ec2-api 17 does not know: tags, MetadataOptions (which mean
nothing here), DryRun; and no second machine when two calls with one client token come at once.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import eventlet.semaphore  # type: ignore[import-not-found]
from ec2api import clients, exception, service  # type: ignore[import-not-found]
from ec2api import config as configuration
from ec2api.api import __dict__ as api  # type: ignore[import-not-found]
from ec2api.api import cloud
from ec2api.db.sqlalchemy import api as database  # type: ignore[import-not-found]
from ec2api.db.sqlalchemy import models
from oslo_log import log  # type: ignore[import-not-found]


class NoVolumes:
    """What there is of block storage."""

    def __getattr__(self, _: str) -> "NoVolumes":
        return self

    def list(self, *_: object, **__: object) -> list[object]:
        """Nothing."""
        return []


class AsService:
    """The module ``requests`` as ec2-api uses it: to have Keystone look at a signature."""

    def __init__(self, plain: Any, keystone: str, password: str) -> None:
        self._plain = plain
        self._keystone = keystone
        self._password = password

    def request(self, method: str, url: str, headers: dict[str, str], **more: object) -> Any:
        """With a token of Nova's user."""
        domain = {"id": "default"}
        user = {"name": "nova", "password": self._password, "domain": domain}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": "service", "domain": domain}}
        answer = self._plain.post(
            f"{self._keystone}/v3/auth/tokens", json={"auth": {"identity": identity, "scope": scope}}
        )
        token = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
        return self._plain.request(method, url, headers={**headers, **token}, **more)


class DryRunOperation(exception.EC2Exception):  # type: ignore[misc]
    """As EC2 says it."""

    msg_fmt = "Request would have succeeded, but DryRun flag is set."
    code = 412


def complete() -> None:
    """See the module."""
    plain = cloud.VpcCloudController.run_instances
    under_way: dict[str, tuple[eventlet.semaphore.Semaphore, list[None]]] = {}

    @contextlib.contextmanager
    def alone(token: str) -> Iterator[None]:
        lock, waiting = under_way.setdefault(token, (eventlet.semaphore.Semaphore(), []))
        waiting.append(None)
        with lock:
            yield
        waiting.pop()
        if not waiting:
            del under_way[token]

    def run_instances(self: Any, context: Any, **wanted: Any) -> Any:
        tags = {each["resource_type"]: each["tag"] for each in wanted.pop("tag_specification", ())}
        wanted.pop("metadata_options", None)
        if wanted.pop("dry_run", False):
            raise DryRunOperation
        with alone(wanted.get("client_token", "")):
            made = plain(self, context, **wanted)
            for each in made["instancesSet"]:
                self.create_tags(context, resource_id=[each["instanceId"]], tag=tags["instance"])
        return made

    cloud.VpcCloudController.run_instances = run_instances


def main() -> None:
    """Until it is killed."""
    file, keystone, password, *completed = sys.argv[1:]
    configuration.parse_args(["ec2-api", "--config-file", file])
    log.setup(configuration.CONF, "ec2api")
    models.BASE.metadata.create_all(database.get_engine())
    clients.cinder = lambda _context: NoVolumes()
    clients.neutronclient.Client.list_floatingips = lambda _client, **_: {"floatingips": []}
    api["requests"] = AsService(api["requests"], keystone, password)
    if completed:
        complete()
    server = service.WSGIService("ec2api", max_url_len=16384)
    service.serve(server, workers=1)
    service.wait()


main()

"""ec2-api for a test: ``python serve.py CONFIGURATION PASTE ADDRESS PASSWORD``, in an environment of its own.

Three things are put right that are no part of what is tested. Its tables are made at once (the migrations want
MySQL). Keystone, since a security update, takes the signature of a request from a service alone, and ec2-api does not
say that it is one. And the control plane has no block storage, which ec2-api asks for the volumes of every machine.
"""

import sys
from typing import Any

from ec2api import (
    clients,  # type: ignore[import-not-found]
    service,
)
from ec2api import config as configuration
from ec2api.api import __dict__ as api  # type: ignore[import-not-found]
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


def main() -> None:
    """Until it is killed."""
    file, keystone, password = sys.argv[1:]
    configuration.parse_args(["ec2-api", "--config-file", file])
    log.setup(configuration.CONF, "ec2api")
    models.BASE.metadata.create_all(database.get_engine())
    clients.cinder = lambda _context: NoVolumes()
    api["requests"] = AsService(api["requests"], keystone, password)
    server = service.WSGIService("ec2api", max_url_len=16384)
    service.serve(server, workers=1)
    service.wait()


main()

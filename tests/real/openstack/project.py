"""A project of the control plane for one test, and what tests do in it beside the driver."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_api import Access
from gridtide.clouds.openstack_machine import FlavorChoice, OpenstackSettings
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import CloudName, GroupName, MachineId, ShapeName, WorkerId
from tests.real.openstack.inside.plane import IMAGE, PASSWORD, PORTS

SETTINGS: Final = OpenstackSettings(
    flavors=(FlavorChoice(ShapeName("tiny"), 0.1), FlavorChoice(ShapeName("large"), 0.4)), networks="none", page=5
)
"""Small pages, so that few machines make several."""

_DOMAIN: Final = {"id": "default"}


class User:
    """Somebody who is logged in."""

    def __init__(self, address: str, name: str, project: str) -> None:
        self.address = address
        self.name = name
        self.project = project
        self._client = httpx.Client(timeout=60.0, trust_env=False)
        user = {"name": name, "password": PASSWORD, "domain": _DOMAIN}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": project, "domain": _DOMAIN}}
        answer = self._client.post(
            f"http://{address}:{PORTS['keystone']}/v3/auth/tokens",
            json={"auth": {"identity": identity, "scope": scope}},
        )
        answer.raise_for_status()
        self.id = str(answer.json()["token"]["user"]["id"])
        self.project_id = str(answer.json()["token"]["project"]["id"])
        self._client.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
        self._client.headers["OpenStack-API-Version"] = "compute 2.69"

    def call(self, service: str, method: str, path: str, body: object = None) -> Any:
        """The answer's JSON. httpx.HTTPStatusError for a refusal."""
        answer = self._client.request(method, f"http://{self.address}:{PORTS[service]}{path}", json=body)
        if answer.is_error:
            raise httpx.HTTPStatusError(answer.text, request=answer.request, response=answer)
        return answer.json() if answer.content.strip() else {}

    def make(self, what: str, **more: object) -> str:
        """Something of Keystone's; its id."""
        return str(self.call("keystone", "POST", f"/v3/{what}s", {what: more})[what]["id"])

    def close(self) -> None:
        """Log out."""
        self._client.close()


@dataclass
class Project:
    """Empty at first. ``owner`` is a member of it, ``administrator`` that of the cloud."""

    owner: User
    administrator: User
    directory: Path
    credential: Mapping[str, str] = field(repr=False)

    @property
    def compute(self) -> str:
        """The address of Nova, not of a proxy before it."""
        return f"http://{self.owner.address}:{PORTS['nova']}"

    def access(self, *, timeout: float = 20.0, endpoint: str | None = None, keystone: str | None = None) -> Access:
        """For a driver, by an application credential. ``endpoint``, ``keystone``: of proxies before the services."""
        address = keystone or f"http://{self.owner.address}:{PORTS['keystone']}"
        auth = {
            "auth_url": f"{address}/v3",
            "application_credential_id": self.credential["id"],
            "application_credential_secret": self.credential["secret"],
        }
        section: dict[str, object] = {
            "auth_type": "v3applicationcredential",
            "auth": auth,
            "region_name": "RegionOne",
        }
        if endpoint is not None:
            section["compute_endpoint_override"] = f"{endpoint}/v2.1"
        file = self.directory / f"clouds-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump({"clouds": {"torino": section}}))
        file.chmod(0o600)
        return Access("torino", file, timeout=timeout)

    def cloud(
        self,
        settings: OpenstackSettings = SETTINGS,
        *,
        site: str = "torino",
        name: str = "private",
        settle: float = 0.0,
        endpoint: str | None = None,
        keystone: str | None = None,
        timeout: float = 20.0,
    ) -> OpenstackCloud:
        """A driver object that knows nothing yet."""
        access = self.access(timeout=timeout, endpoint=endpoint, keystone=keystone)
        return OpenstackCloud(CloudName(name), site, access, settings, settle=settle)

    def servers(self) -> list[dict[str, Any]]:
        """All of it, as Nova has them."""
        return list(self.owner.call("nova", "GET", "/v2.1/servers/detail")["servers"])

    def act(self, machine: MachineId, action: Mapping[str, object], *, administrator: bool = False) -> None:
        """Nova's server actions."""
        who = self.administrator if administrator else self.owner
        who.call("nova", "POST", f"/v2.1/servers/{machine}/action", action)

    def wait_for(self, machine: MachineId, *statuses: str, patience: float = 60.0) -> None:
        """Until Nova says one of these."""
        until(lambda: self.status(machine) in statuses, f"{machine} is not {statuses}", patience)

    def status(self, machine: MachineId) -> str:
        """Nova's word."""
        return str(self.owner.call("nova", "GET", f"/v2.1/servers/{machine}")["server"]["status"])

    def stop(self, machine: MachineId) -> None:
        """Power it off; returns when it is."""
        self.wait_for(machine, "ACTIVE")
        self.act(machine, {"os-stop": None})
        self.wait_for(machine, "SHUTOFF")

    def break_(self, machine: MachineId) -> None:
        """As an administrator does with ``openstack server set --state error``."""
        self.wait_for(machine, "ACTIVE")
        self.act(machine, {"os-resetState": {"state": "error"}}, administrator=True)

    def limit(self, **quota: int) -> None:
        """Set its quota: instances, cores, ram."""
        path = f"/v2.1/os-quota-sets/{self.owner.project_id}"
        self.administrator.call("nova", "PUT", path, {"quota_set": {**quota, "force": True}})

    def add_foreign(self, name: str = "theirs") -> MachineId:
        """A server of somebody else in the project."""
        flavors = self.owner.call("nova", "GET", "/v2.1/flavors")["flavors"]
        images = self.owner.call("glance", "GET", "/v2/images")["images"]
        server = {
            "name": name,
            "flavorRef": next(each["id"] for each in flavors if each["name"] == "tiny"),
            "imageRef": next(each["id"] for each in images if each["name"] == IMAGE),
            "networks": "none",
            "metadata": {"gridtide:site": "milano/private", "gridtide:worker": "theirs"},
        }
        found = self.owner.call("nova", "POST", "/v2.1/servers", {"server": server})
        self.wait_for(MachineId(found["server"]["id"]), "ACTIVE")
        return MachineId(found["server"]["id"])

    def remove(self) -> None:
        """Order the end of all servers. Nobody waits for it: no other test sees this project."""
        for server in self.servers():
            with contextlib.suppress(httpx.HTTPStatusError):  # it is gone, or on its way
                self.act(MachineId(server["id"]), {"forceDelete": None})


def new_project(administrator: User, directory: Path, *, expires_at: str | None = None) -> Project:
    """With a user of its own, and an application credential of that user."""
    name = f"project-{secrets.token_hex(4)}"
    project = administrator.make("project", name=name, domain_id="default")
    user = administrator.make("user", name=name, password=PASSWORD, domain_id="default")
    roles = administrator.call("keystone", "GET", "/v3/roles")["roles"]
    member = next(role["id"] for role in roles if role["name"] == "member")
    administrator.call("keystone", "PUT", f"/v3/projects/{project}/users/{user}/roles/{member}")
    owner = User(administrator.address, name, name)
    wanted: dict[str, object] = {"name": "gridtide"}
    if expires_at is not None:
        wanted["expires_at"] = expires_at
    path = f"/v3/users/{owner.id}/application_credentials"
    made: list[dict[str, Any]] = []

    def make() -> bool:
        # Keystone's cache may not know of the role yet, while others are given roles.
        with contextlib.suppress(httpx.HTTPStatusError):
            made.append(owner.call("keystone", "POST", path, {"application_credential": wanted}))
        return bool(made)

    until(make, "no application credential can be made")
    credential = made[0]["application_credential"]
    return Project(owner, administrator, directory, {"id": credential["id"], "secret": credential["secret"]})


def request(worker: str, user_data: bytes = b"#cloud-config\n", shape: str = "tiny") -> LaunchRequest:
    """For one machine."""
    return LaunchRequest(WorkerId(worker), GroupName("grid"), ShapeName(shape), None, IMAGE, user_data)


def with_settings(**more: object) -> OpenstackSettings:
    """The settings of the tests, changed."""
    return replace(SETTINGS, **more)  # type: ignore[arg-type]


def until(true: Callable[[], bool], why: str, patience: float = 30.0) -> None:
    """Wait for a condition. AssertionError when it does not come."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, why
        time.sleep(0.1)

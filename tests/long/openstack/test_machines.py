"""What the driver makes of real Nova, Glance, Neutron and Keystone, beyond the conformance suite."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_api import Access
from gridtide.clouds.openstack_machine import FlavorChoice
from gridtide.clouds.protocol import Level
from gridtide.errors import AuthenticationFailed, ImageNotFound, LaunchRejected, QuotaExceeded
from gridtide.model.ids import CloudName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.testing.fault_proxy import FaultProxy
from tests.real.openstack.inside.plane import IMAGE, NETWORK, PASSWORD, PORTS
from tests.real.openstack.nova import END, LAUNCH, LIST, nova_call
from tests.real.openstack.project import SETTINGS, Project, User, new_project, request, until, with_settings


@pytest.fixture
async def cloud(project: Project) -> AsyncIterator[OpenstackCloud]:
    made = project.cloud()
    yield made
    await made.close()


async def launched(cloud: OpenstackCloud, worker: str = "grid-1", **more: str) -> MachineId:
    machine = (await cloud.launch([request(worker, **more)]))[WorkerId(worker)]  # type: ignore[arg-type]
    assert isinstance(machine, str), machine
    return MachineId(machine)


# --- states


async def test_an_administrators_error_is_broken_and_back(project: Project, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    await asyncio.to_thread(project.break_, machine)
    (found,) = await cloud.machines()
    assert (found.state, found.worker) == (MachineState.BROKEN, "grid-1")
    assert "administrator" in found.message
    project.act(machine, {"os-resetState": {"state": "active"}}, administrator=True)
    assert [each.state for each in await cloud.machines()] == [MachineState.RUNNING]


async def test_no_valid_host_is_a_broken_machine_with_novas_words(project: Project) -> None:
    name = f"huge-{project.owner.name}"
    flavor = {"name": name, "vcpus": 1, "ram": 90_000_000, "disk": 1}
    made = project.administrator.call("nova", "POST", "/v2.1/flavors", {"flavor": flavor})["flavor"]["id"]
    project.limit(ram=-1)
    cloud = project.cloud(with_settings(flavors=(FlavorChoice(ShapeName(name)),)))
    machine = await launched(cloud, shape=name)
    await asyncio.to_thread(project.wait_for, machine, "ERROR")
    for _ in range(2):  # Nova may write it down a moment later
        found = (await cloud.machines())[0]
        await asyncio.sleep(0.5)
    assert found.state is MachineState.BROKEN
    assert "No valid host was found" in found.message
    assert await cloud.terminate([machine]) == {machine: None}
    project.administrator.call("nova", "DELETE", f"/v2.1/flavors/{made}")
    await cloud.close()


async def test_a_suspended_machine_is_no_evidence(project: Project, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    await asyncio.to_thread(project.wait_for, machine, "ACTIVE")
    project.act(machine, {"suspend": None})
    await asyncio.to_thread(project.wait_for, machine, "SUSPENDED")
    assert [each.state for each in await cloud.machines()] == [MachineState.UNKNOWN]


async def test_a_locked_machine_is_not_ended_and_says_so(project: Project, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    await asyncio.to_thread(project.wait_for, machine, "ACTIVE")
    project.act(machine, {"lock": {}}, administrator=True)
    error = (await cloud.terminate([machine]))[machine]
    assert isinstance(error, LaunchRejected)
    assert "locked" in str(error)
    project.act(machine, {"unlock": None}, administrator=True)


# --- quota


async def test_quota_is_read_from_the_cloud(project: Project, cloud: OpenstackCloud) -> None:
    project.limit(instances=7, cores=-1, ram=4096)
    assert await cloud.quota() == Quota(cores=None, memory=4096, machines=7)


async def test_what_does_not_fit_the_quota_is_not_asked_for(project: Project) -> None:
    project.limit(instances=100, cores=4, ram=-1)
    await asyncio.to_thread(project.add_foreign)
    async with FaultProxy(project.compute, name=nova_call) as proxy:
        cloud = project.cloud(endpoint=proxy.url)
        answers = await cloud.launch([request(f"grid-{number}") for number in range(6)])
        refused = [answer for answer in answers.values() if isinstance(answer, QuotaExceeded)]
        assert len(refused) == 3
        assert {error.scope for error in refused} == {"cores"}
        assert proxy.calls[LAUNCH] == 3, "one core is a stranger's"
        again = await cloud.launch([request("grid-9")])
        assert isinstance(again[WorkerId("grid-9")], QuotaExceeded)
        assert proxy.calls[LAUNCH] == 3
        await cloud.close()


async def test_two_bulk_launches_at_once_keep_to_the_quota_together(project: Project, cloud: OpenstackCloud) -> None:
    project.limit(instances=4, cores=-1, ram=-1)
    first, second = await asyncio.gather(
        cloud.launch([request(f"grid-{number}") for number in range(3)]),
        cloud.launch([request(f"more-{number}") for number in range(3)]),
    )
    answers = [*first.values(), *second.values()]
    assert sum(isinstance(answer, str) for answer in answers) == 4
    assert sum(isinstance(answer, QuotaExceeded) for answer in answers) == 2


# --- what machines are made of


async def test_everything_by_name(project: Project) -> None:
    owner = project.owner
    owner.call("nova", "POST", "/v2.1/os-keypairs", {"keypair": {"name": "mine", "public_key": PUBLIC_KEY}})
    group = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    made = owner.call("nova", "POST", "/v2.1/os-server-groups", group)["server_group"]["id"]
    wanted = {"security_group": {"name": "out"}}
    owner.call("neutron", "POST", "/v2.0/security-groups", wanted)
    cloud = project.cloud(
        with_settings(
            networks=(NETWORK,),
            zones=(Zone("nova"),),
            security_groups=("out",),
            key_pair="mine",
            server_group="apart",
            config_drive=True,
            image_properties={"os_distro": "debian"},
            tags={"department": "physics"},
        )
    )
    findings = await cloud.check([IMAGE])
    assert [each for each in findings if each.level is Level.ERROR] == []
    machine = await launched(cloud)
    await asyncio.to_thread(project.wait_for, machine, "ACTIVE")
    (server,) = project.servers()
    assert server["metadata"]["department"] == "physics"
    assert (server["key_name"], server["config_drive"], server["tags"]) == ("mine", "True", ["gridtide"])
    assert server["OS-EXT-AZ:availability_zone"] == "nova"
    assert [each["name"] for each in server["security_groups"]] == ["out"]
    assert list(server["addresses"]) == [NETWORK]
    assert owner.call("nova", "GET", f"/v2.1/os-server-groups/{made}")["server_group"]["members"] == [machine]
    assert [each.zone for each in await cloud.machines()] == ["nova"]
    await cloud.terminate([machine])
    await cloud.close()
    ports = f"/v2.0/ports?device_id={machine}"
    await asyncio.to_thread(until, lambda: not owner.call("neutron", "GET", ports)["ports"], "its port stays")


async def test_what_does_not_exist_is_told(project: Project) -> None:
    cloud = project.cloud(
        with_settings(
            networks=("moon",),
            zones=(Zone("mars"),),
            key_pair="lost",
            server_group="none",
            flavors=(FlavorChoice(ShapeName("tiny")), FlavorChoice(ShapeName("no-such"))),
        )
    )
    findings = {each.subject: each for each in await cloud.check(["no-such-image", IMAGE])}
    wrong = {subject for subject, each in findings.items() if each.level is Level.ERROR}
    assert wrong == {"shape no-such", "networks", "key pair", "server group", "zone mars", "image no-such-image"}
    assert findings["zone mars"].remedy == "there is: nova"
    answers = await cloud.launch([request("grid-1")])
    assert isinstance(answers[WorkerId("grid-1")], LaunchRejected)
    assert not project.servers()
    await cloud.close()


async def test_images_by_id_and_by_properties(project: Project, cloud: OpenstackCloud) -> None:
    images = project.owner.call("glance", "GET", "/v2/images")["images"]
    image = next(each["id"] for each in images if each["name"] == IMAGE)
    loop = asyncio.get_running_loop()
    assert await cloud.catalogue.image(image, loop.time() + 20) == image
    assert await cloud.catalogue.image(IMAGE, loop.time() + 20) == image
    other = project.cloud(with_settings(image_properties={"os_distro": "plan9"}))
    for name in (IMAGE, "70a599e0-31e7-49b7-b260-868f441e862b"):
        with pytest.raises(ImageNotFound):
            await other.catalogue.image(name, loop.time() + 20)
    await other.close()


async def test_all_flavours_when_the_site_file_names_none(project: Project) -> None:
    cloud = project.cloud(with_settings(flavors=()))
    shapes = {shape.name: shape for shape in await cloud.shapes()}
    assert {"tiny", "large"} <= shapes.keys()
    assert (shapes[ShapeName("large")].resources.cores, shapes[ShapeName("large")].resources.disk) == (4, 40_960)
    await cloud.close()


async def test_user_data_reaches_nova_and_nobody_else(project: Project, cloud: OpenstackCloud) -> None:
    machine = (await cloud.launch([request("grid-1", b"\x00\xffbytes")]))[WorkerId("grid-1")]
    seen = project.administrator.call("nova", "GET", f"/v2.1/servers/{machine}")["server"]
    assert seen["OS-EXT-SRV-ATTR:user_data"] == "AP9ieXRlcw=="
    too_long = (await cloud.launch([request("grid-2", bytes(49_150))]))[WorkerId("grid-2")]
    assert isinstance(too_long, LaunchRejected)
    longest = (await cloud.launch([request("grid-3", bytes(49_149))]))[WorkerId("grid-3")]
    assert isinstance(longest, str)


async def test_the_console(project: Project, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    await asyncio.to_thread(project.wait_for, machine, "ACTIVE")
    assert await cloud.console(machine, most=1000) == b"FAKE CONSOLE OUTPUT\nANOTHER\nLAST LINE"
    assert await cloud.console(machine, most=4) == b"LINE"
    assert await cloud.console(MachineId("70a599e0-31e7-49b7-b260-868f441e862b"), most=10) is None
    assert await cloud.console(MachineId("../x"), most=10) is None


# --- credentials


async def test_a_token_that_was_revoked_is_renewed(project: Project, cloud: OpenstackCloud) -> None:
    await cloud.machines()
    session = cloud.api._connected().get_session()
    token = await asyncio.to_thread(session.get_token)
    address = f"http://{project.owner.address}:{PORTS['keystone']}/v3/auth/tokens"
    headers = {"X-Auth-Token": str(token), "X-Subject-Token": str(token)}
    answer = await asyncio.to_thread(lambda: httpx.delete(address, headers=headers, trust_env=False))
    assert answer.status_code == 204
    assert await cloud.machines() == ()


async def test_wrong_credentials(project: Project) -> None:
    cloud = project.cloud()
    project.credential = {**project.credential, "secret": "wrong"}
    wrong = project.cloud()
    for call in (wrong.machines(), wrong.shapes(), wrong.quota()):
        with pytest.raises(AuthenticationFailed) as caught:
            await call
        assert "use-openstack" in str(caught.value)
    refused = (await wrong.launch([request("grid-1")]))[WorkerId("grid-1")]
    assert isinstance(refused, AuthenticationFailed)
    (finding,) = await wrong.check([])
    assert (finding.subject, finding.level) == ("credentials", Level.ERROR)
    assert await cloud.machines() == ()
    await cloud.close()
    await wrong.close()


async def test_credentials_that_expire_soon_are_warned_of(administrator: User, tmp_path: Path) -> None:
    for days, level in ((7, Level.WARNING), (9, Level.OK)):
        ends = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000000")
        project = new_project(administrator, tmp_path, expires_at=ends)
        cloud = project.cloud()
        finding = next(each for each in await cloud.check([]) if each.subject == "credentials")
        assert finding.level is level
        assert ends[:10] in finding.text
        assert await cloud.credentials() == finding, "what the service looks at every few hours"
        await cloud.close()
        project.owner.close()


async def test_a_missing_profile(project: Project, tmp_path: Path) -> None:
    access = project.access()
    access = type(access)("milano", access.file)
    cloud = OpenstackCloud(project.cloud().name, "torino", access, with_settings())
    (finding,) = await cloud.check([])
    assert finding.level is Level.ERROR
    assert "milano" in finding.text
    await cloud.close()


# --- several projects, several regions


async def test_one_user_in_two_projects(project: Project, administrator: User, tmp_path: Path) -> None:
    """By password: an application credential has one project."""
    other = new_project(administrator, tmp_path)
    owner = project.owner
    roles = administrator.call("keystone", "GET", "/v3/roles")["roles"]
    member = next(role["id"] for role in roles if role["name"] == "member")
    path = f"/v3/projects/{other.owner.project_id}/users/{owner.id}/roles/{member}"
    administrator.call("keystone", "PUT", path)
    user = {"username": owner.name, "password": PASSWORD, "user_domain_id": "default", "project_domain_id": "default"}
    auth = {"auth_url": f"http://{owner.address}:{PORTS['keystone']}/v3", **user}
    file = tmp_path / "clouds.yaml"
    file.write_text(yaml.safe_dump({"clouds": {"torino": {"auth": auth, "region_name": "RegionOne"}}}))
    clouds = [
        OpenstackCloud(CloudName("private"), "torino", Access("torino", file, project=each), SETTINGS, settle=0.0)
        for each in (owner.project, other.owner.project)
    ]
    made = await launched(clouds[0])
    assert [[each.id for each in await cloud.machines()] for cloud in clouds] == [[made], []]
    await launched(clouds[1])
    assert [len(each.servers()) for each in (project, other)] == [1, 1], "each project has its own of one worker"
    for cloud in clouds:
        await cloud.close()
    other.remove()
    other.owner.close()


async def test_a_region_has_endpoints_of_its_own(project: Project, administrator: User) -> None:
    """A second region of the catalog: the same services, Nova behind another address."""
    name = f"region-{project.owner.name}"
    administrator.call("keystone", "POST", "/v3/regions", {"region": {"id": name}})
    services = administrator.call("keystone", "GET", "/v3/services")["services"]
    async with FaultProxy(project.compute, name=nova_call) as proxy:
        made = [
            administrator.make("endpoint", service_id=each["id"], interface="public", region_id=name, url=url)
            for each in services
            if (url := proxy.url + "/v2.1" if each["type"] == "compute" else catalogued(administrator, each["id"]))
        ]
        here, there, nowhere = (
            OpenstackCloud(CloudName("private"), "torino", replace(project.access(), region=each), SETTINGS)
            for each in (None, name, "region-of-nobody")
        )
        machine = await launched(there)
        assert proxy.calls[LAUNCH] == 1
        calls = sum(proxy.calls.values())
        assert [each.id for each in await here.machines()] == [machine], "the same Nova"
        assert sum(proxy.calls.values()) == calls, "by its other address"
        with pytest.raises(AuthenticationFailed, match="region-of-nobody"):
            await nowhere.machines()
        for cloud in (here, there, nowhere):
            await cloud.close()
    for endpoint in made:
        administrator.call("keystone", "DELETE", f"/v3/endpoints/{endpoint}")


def catalogued(administrator: User, service: str) -> str:
    endpoints = administrator.call("keystone", "GET", f"/v3/endpoints?service_id={service}&interface=public")
    return next((str(each["url"]) for each in endpoints["endpoints"] if each["region_id"] == "RegionOne"), "")


# --- calls


async def test_three_calls_per_machine_at_most(project: Project) -> None:
    async with FaultProxy(project.compute, name=nova_call) as proxy:
        cloud = project.cloud(with_settings(page=1000), endpoint=proxy.url)
        workers = [f"grid-{number}" for number in range(7)]
        made = await cloud.launch([request(worker) for worker in workers])
        await cloud.machines()
        ended = await cloud.terminate([MachineId(str(machine)) for machine in made.values()])
        await cloud.machines()
        assert set(ended.values()) == {None}
        assert proxy.calls[LAUNCH] == proxy.calls[END] == len(workers)
        assert proxy.calls[LIST] == 3
        assert sum(proxy.calls.values()) <= 3 * len(workers)
        await cloud.close()


PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHHTMcvVZTcEWvYBXgcBKYhTQmYRxz9ExGhKZfMU+tL nobody"

"""What machines are made of, what is seen of them, and what ``check`` says, on a healthy OpenNebula."""

import base64
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.clouds.opennebula_machine import USER_DATA_LIMIT, TemplateChoice
from gridtide.clouds.opennebula_states import LIFE_CYCLE, STATES
from gridtide.clouds.protocol import Finding, Level
from gridtide.context.formats import render
from gridtide.errors import AuthenticationFailed, ImageNotFound, LaunchRejected, NoCapacity, QuotaExceeded
from gridtide.model.contexts import ContextFormat
from gridtide.model.ids import MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.model.resources import Resources
from tests.real.opennebula.documents import Machine, Thing
from tests.real.opennebula.server import ACTIVE, OURS, PASSWORD, THEIRS
from tests.real.opennebula.tenant import IMAGE, Tenant, having, request

W = WorkerId("grid-1")


@pytest.fixture
async def cloud(tenant: Tenant) -> AsyncIterator[OpennebulaCloud]:
    made = tenant.cloud()
    yield made
    await made.close()


async def made(cloud: OpennebulaCloud, tenant: Tenant, **more: object) -> Machine:
    """One machine, as OpenNebula has it."""
    answers = await cloud.launch([replace(request(W), **more)])  # type: ignore[arg-type]
    assert isinstance(answers[W], str), answers[W]
    return tenant.nebula.machine(str(answers[W]))


# --- what a machine is made of


async def test_a_machine_has_its_template_its_image_and_our_tags(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    machine = await made(cloud, tenant)
    assert machine.name == W
    assert machine.vectors("DISK") == [{"IMAGE_ID": "7"}]
    assert machine.vectors("NIC") == [{"NETWORK": "public"}], "the template's"
    assert machine.user_template == [
        ("GRIDTIDE_SITE", "torino/private"),
        ("GRIDTIDE_WORKER", W),
        ("GRIDTIDE_GROUP", "grid"),
        ("GRIDTIDE_SHAPE", "small"),
    ]
    (context,) = machine.vectors("CONTEXT")
    assert context == {
        "NETWORK": "YES",
        "SSH_PUBLIC_KEY": "$USER[SSH_PUBLIC_KEY]",
        "SET_HOSTNAME": W,
        "USER_DATA": base64.b64encode(b"#cloud-config\n").decode(),
        "USERDATA_ENCODING": "base64",
    }, "the template's own script gives way"


async def test_a_context_sh_of_ours_becomes_the_context(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    agent = {"worker": W, "join_token": "do-not-show"}
    machine = await made(cloud, tenant, user_data=render(ContextFormat.OPENNEBULA, agent, []))
    (context,) = machine.vectors("CONTEXT")
    assert set(context) == {"NETWORK", "SSH_PUBLIC_KEY", "SET_HOSTNAME", "START_SCRIPT_BASE64"}
    assert context["SET_HOSTNAME"] == W
    assert b"do-not-show" in base64.b64decode(context["START_SCRIPT_BASE64"])


@pytest.mark.parametrize(
    "hostile",
    [b"A='x'\nB=$(reboot)\n", b"A=$USER[TOKEN]\n", b"]]></CONTEXT>", b"A='it''s'\n", b"a=b\n", b"", b"\xff\0"],
)
async def test_other_user_data_is_passed_on_whole(tenant: Tenant, cloud: OpennebulaCloud, hostile: bytes) -> None:
    (context,) = (await made(cloud, tenant, user_data=hostile)).vectors("CONTEXT")
    assert base64.b64decode(context.get("USER_DATA", "")) == hostile
    assert "A" not in context


async def test_user_data_has_a_limit(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    answers = await cloud.launch([request("a", b"x" * USER_DATA_LIMIT), request("b", b"x" * (USER_DATA_LIMIT + 1))])
    assert isinstance(answers[WorkerId("a")], str)
    assert isinstance(answers[WorkerId("b")], LaunchRejected)
    (context,) = tenant.living()[0].vectors("CONTEXT")
    assert len("USER_DATA=") + len(context["USER_DATA"]) < 131_072, "Linux takes no longer variable"


async def test_what_the_site_file_says_goes_before_the_template(tenant: Tenant) -> None:
    choice = TemplateChoice(ShapeName("big"), "small", cores=8, memory=20_000, disk=50_000, gpus=1)
    cloud = tenant.cloud(having(templates=(choice,), networks=("public", "2"), clusters=(Zone("physics"), Zone("0"))))
    (shape,) = await cloud.shapes()
    assert shape.resources == Resources(8, 20_000, 50_000, 1)
    machine = await made(cloud, tenant, shape=ShapeName("big"))
    assert (machine.first("VCPU"), machine.first("CPU"), machine.first("MEMORY")) == ("8", "4", "20000")
    assert machine.vectors("DISK") == [{"IMAGE_ID": "7", "SIZE": "50000"}]
    assert machine.vectors("NIC") == [{"NETWORK_ID": "1"}, {"NETWORK_ID": "2"}]
    assert machine.said("SCHED_REQUIREMENTS") == 'CLUSTER = "physics"'
    (seen,) = await cloud.machines()
    assert (seen.zone, seen.resources) == ("physics", Resources(8, 20_000, 50_000))
    assert cloud.zones() == ("physics", "0")
    await cloud.close()


async def test_requirements_of_the_template_still_hold(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.templates[0].attributes.append(("SCHED_REQUIREMENTS", 'ARCH = "x" | FREE_CPU > 1'))
    machine = await made(cloud, tenant, zone=Zone("100"))
    assert machine.said("SCHED_REQUIREMENTS") == '(ARCH = "x" | FREE_CPU > 1) & (CLUSTER_ID = 100)'


async def test_other_disks_are_kept(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    swap = {"TYPE": "swap", "SIZE": "1024"}
    tenant.nebula.templates[0].attributes.insert(0, ("DISK", swap))
    assert (await cloud.shapes())[0].resources.disk == 10_240, "not that of the swap"
    assert (await made(cloud, tenant)).vectors("DISK") == [{"IMAGE_ID": "7"}, swap], "the image is booted from"


async def test_without_an_image_it_is_the_templates(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    assert (await made(cloud, tenant, image=None)).vectors("DISK") == [{"IMAGE": "base", "IMAGE_UNAME": "oneadmin"}]
    tenant.nebula.templates.append(Thing(11, OURS, "bare", [("VCPU", "1"), ("MEMORY", "512")]))
    bare = tenant.cloud(having(templates=(TemplateChoice(ShapeName("bare"), "bare"),)))
    answers = await bare.launch([request("a", shape="bare", image=None), request("b", shape="bare")])
    assert isinstance(answers[WorkerId("a")], LaunchRejected)
    assert isinstance(answers[WorkerId("b")], str)
    await bare.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("worker-2026.12", ImageNotFound),  # of another user: anybody may publish one under any name
        ("nowhere", ImageNotFound),
        ("99", ImageNotFound),
        ("broken", ImageNotFound),
        ("data", LaunchRejected),
    ],
)
async def test_an_image_that_cannot_be_used(tenant: Tenant, cloud: OpennebulaCloud, name: str, kind: type) -> None:
    answers = await cloud.launch([request(W, image=name)])
    assert isinstance(answers[W], kind)
    assert name in str(answers[W])
    assert tenant.ids() == []


@pytest.mark.parametrize(("name", "number"), [(IMAGE, "7"), ("base", "0"), ("8", "8")])
async def test_an_image_by_name_or_by_id(tenant: Tenant, cloud: OpennebulaCloud, name: str, number: str) -> None:
    assert (await made(cloud, tenant, image=name)).vectors("DISK") == [{"IMAGE_ID": number}]


async def test_a_users_own_image_goes_before_the_administrators(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.images.append(Thing(20, OURS, "base", size=1))
    assert (await made(cloud, tenant, image="base")).vectors("DISK") == [{"IMAGE_ID": "20"}]


async def test_an_image_that_was_replaced_under_its_name_is_found_with_the_next_launch(
    tenant: Tenant, cloud: OpennebulaCloud
) -> None:
    await made(cloud, tenant)
    tenant.nebula.images = [Thing(30, OURS, IMAGE, size=8192)]
    assert isinstance((await cloud.launch([request("b")]))[WorkerId("b")], ImageNotFound)
    assert isinstance((await cloud.launch([request("b")]))[WorkerId("b")], str)


async def test_a_network_that_is_not_there(tenant: Tenant) -> None:
    cloud = tenant.cloud(having(networks=("private",)))
    answers = await cloud.launch([request(W)])
    assert isinstance(answers[W], LaunchRejected)
    assert "private" in str(answers[W])
    await cloud.close()


async def test_shapes_are_what_templates_say(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    assert [(each.name, each.resources, each.price) for each in await cloud.shapes()] == [
        ("small", Resources(2, 4096, 10_240), 0.1),
        ("large", Resources(1, 16_384, 30_720), 0.4),
    ], "without VCPU a machine has one core; a disk without SIZE has its image's"
    tenant.nebula.templates = tenant.nebula.templates[:1]
    assert [each.name for each in await cloud.shapes()] == ["small"]


async def test_what_a_template_says_wrongly_is_not_believed(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.templates[0].attributes[:] = [("CPU", "-1"), ("VCPU", "many"), ("MEMORY", "9" * 40), ("DISK", "no")]
    (small, _) = await cloud.shapes()
    assert small.resources == Resources(1, 0, 0)


# --- what is seen


@pytest.mark.parametrize(
    ("number", "expected"), [(number, state) for number, (_, state) in STATES.items() if number != 6]
)
async def test_every_state(tenant: Tenant, cloud: OpennebulaCloud, number: int, expected: MachineState) -> None:
    tenant.nebula.pace = 60.0
    tenant.nebula.put(tenant.nebula.make(OURS, "x", []), number)
    (seen,) = await cloud.machines()
    assert seen.state is expected
    assert bool(seen.message) is (expected not in (MachineState.STARTING, MachineState.RUNNING))


async def test_every_state_of_the_life_cycle(tenant: Tenant) -> None:
    cloud = tenant.cloud(having(page=500))
    tenant.nebula.pace = 60.0
    numbers = {str(tenant.nebula.make(OURS, "x", [])): number for number in [*LIFE_CYCLE, 99]}
    for machine, number in numbers.items():
        tenant.nebula.put(machine, ACTIVE, number)
    tenant.nebula.put(tenant.nebula.make(OURS, "later", []), 99)
    for seen in await cloud.machines():
        name, expected = LIFE_CYCLE.get(numbers.get(seen.id, 99), ("99", MachineState.UNKNOWN))
        assert seen.state is expected
        alive = seen.state in (MachineState.STARTING, MachineState.RUNNING)
        assert (name in seen.message) is not alive
    await cloud.close()


async def test_a_done_machine_is_gone(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    machine = await made(cloud, tenant)
    tenant.nebula.put(machine.id, 6)
    assert await cloud.machines() == ()
    assert await cloud.terminate([MachineId(str(machine.id))]) == {str(machine.id): None}


async def test_what_opennebula_says_of_an_error_is_passed_on(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    machine = await made(cloud, tenant)
    machine.user_template.append(("ERROR", "Error booting VM: no such device " + "A" * 100))
    tenant.nebula.put(machine.id, ACTIVE, 36)
    (seen,) = await cloud.machines()
    assert (seen.state, seen.message) == (MachineState.BROKEN, "Error booting VM: no such device ...")


async def test_a_machine_that_no_host_takes_is_broken_after_a_while(tenant: Tenant) -> None:
    tenant.nebula.hosts = False
    cloud = tenant.cloud(having(placement=0.0))
    await made(cloud, tenant)
    tenant.nebula.make(THEIRS, "theirs", [])
    states = {each.worker: each.state for each in await cloud.machines()}
    assert set(states.values()) == {MachineState.STARTING}
    seen = {each.worker: each for each in await cloud.machines()}
    assert seen[W].state is MachineState.BROKEN
    assert "No host meets capacity" in seen[W].message
    assert seen[None].state is MachineState.STARTING, "nobody asked"
    tenant.nebula.hosts = True
    assert {each.state for each in await cloud.machines()} == {MachineState.RUNNING}
    await cloud.close()


async def test_where_none_found_a_host_no_more_are_made_for_a_while(tenant: Tenant) -> None:
    tenant.nebula.hosts = False
    cloud = tenant.cloud(having(placement=3600.0))
    waits = await made(cloud, tenant, zone=Zone("physics"))
    await cloud.machines()
    cloud.listing._waiting[MachineId(str(waits.id))] -= 3601.0  # an hour goes by
    (seen,) = await cloud.machines()
    assert seen.state is MachineState.BROKEN
    requests = [replace(request(f"b{number}"), zone=Zone("physics")) for number in range(3)]
    refused = await cloud.launch(requests)
    assert {type(each) for each in refused.values()} == {NoCapacity}
    assert f"no host has taken {waits.id}" in str(refused[WorkerId("b0")])
    elsewhere = await cloud.launch(
        [replace(request("c"), zone=Zone("0")), replace(request("d", shape="large"), zone=Zone("physics"))]
    )
    assert all(isinstance(each, str) for each in elsewhere.values())
    await cloud.close()


# --- quotas


async def test_quotas_are_the_tighter_of_user_and_group(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    assert await cloud.quota() == Quota()
    tenant.nebula.quota = {
        "user": {"VMS": "5", "CPU": "-1", "MEMORY": "-2"},
        "group": {"VMS": "-1", "CPU": "7.5", "MEMORY": "65536", "RUNNING_VMS": "3"},
        "default user": {"CPU": "16", "MEMORY": "1"},
        "default group": {"VMS": "50"},
    }
    assert await cloud.quota() == Quota(cores=7, memory=65_536, machines=3)


async def test_what_the_quota_does_not_hold_is_not_asked_for(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.quota = {"user": {"VMS": "3"}}
    tenant.nebula.make(OURS, "by hand", [])
    answers = await cloud.launch([request(f"grid-{number}") for number in range(5)])
    refused = [answer for answer in answers.values() if isinstance(answer, QuotaExceeded)]
    assert (len(refused), tenant.nebula.calls["one.template.instantiate"]) == (3, 2)
    assert {each.scope for each in refused} == {"machines"}
    assert "of the user's 3 machines" in str(refused[0])


async def test_what_others_of_the_group_use_counts(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.quota = {"group": {"CPU": "4"}}
    tenant.nebula.make(THEIRS, "theirs", [("CPU", "3.5"), ("MEMORY", "1")])
    answers = await cloud.launch([request(W)])
    assert isinstance(answers[W], QuotaExceeded)
    assert answers[W].scope == "cores"  # type: ignore[union-attr]
    assert tenant.nebula.calls["one.template.instantiate"] == 0


async def test_a_quota_that_shrinks_amid_a_launch(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    def shrink(method: str, arguments: tuple[object, ...]) -> None:
        if method == "one.template.instantiate":
            tenant.nebula.quota = {"user": {"MEMORY": "8192"}}

    tenant.nebula.hook = shrink
    answers = await cloud.launch([request(f"grid-{number}") for number in range(12)])
    refused = [answer for answer in answers.values() if isinstance(answer, QuotaExceeded)]
    assert (len(refused), len(tenant.ids())) == (10, 2)
    assert {each.scope for each in refused} == {"memory"}
    assert tenant.nebula.calls["one.template.instantiate"] < 12


# --- check


def levels(findings: tuple[Finding, ...]) -> dict[str, Level]:
    return {each.subject: each.level for each in findings}


async def test_check_of_a_good_cloud(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    findings = await cloud.check([IMAGE, "nowhere"])
    bad = {each.subject: each.level for each in findings if each.level is not Level.OK}
    assert bad == {"connection": Level.WARNING, "image nowhere": Level.ERROR}, "this endpoint is not encrypted"
    assert PASSWORD not in repr(findings)


async def test_check_of_what_is_wrong(tenant: Tenant) -> None:
    tenant.nebula.version = "5.8.1"
    tenant.nebula.templates[0].attributes[:] = []
    settings = having(
        templates=(TemplateChoice(ShapeName("small"), "small"), TemplateChoice(ShapeName("none"), "none")),
        networks=("nowhere",),
        clusters=(Zone("default"), Zone("100"), Zone("moon")),
    )
    cloud = tenant.cloud(settings)
    findings = await cloud.check([])
    found = {(each.subject, each.level) for each in findings}
    assert found >= {
        ("shape none", Level.ERROR),
        ("shape small", Level.ERROR),
        ("shape small", Level.WARNING),
        ("networks", Level.ERROR),
        ("cluster default", Level.OK),
        ("cluster 100", Level.OK),
        ("cluster moon", Level.WARNING),
    }
    assert any("older than 5.12" in each.text for each in findings)
    await cloud.close()


@pytest.mark.parametrize(
    ("ends", "level", "words"),
    [(-1, Level.OK, "does not expire"), (7 * 86_400, Level.WARNING, "expires"), (9 * 86_400, Level.OK, "expires")],
)
async def test_check_tells_when_a_login_token_ends(
    tenant: Tenant, cloud: OpennebulaCloud, ends: int, level: Level, words: str
) -> None:
    tenant.nebula.tokens = {"other": int(time.time()) + 60, "t0ken": ends if ends < 0 else int(time.time()) + ends}
    tenant.credentials("gridtide:t0ken")
    found = (await cloud.check([]))[0]
    assert (found.subject, found.level) == ("credentials", level)
    assert words in found.text
    assert "t0ken" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (f"gridtide:{PASSWORD}", 0o640, "others may read"),
        (f"gridtide:{PASSWORD}", 0o602, "others may read"),
        ("gridtide", 0o600, "does not hold credentials"),
        (":x", 0o600, "does not hold credentials"),
        ("a:b\nc:d", 0o600, "does not hold credentials"),
        ("gridtide:wrong-secret", 0o600, "authenticated"),
    ],
)
async def test_credentials_that_are_not_right(
    tenant: Tenant, cloud: OpennebulaCloud, text: str, mode: int, words: str
) -> None:
    tenant.credentials(text, mode)
    with pytest.raises(AuthenticationFailed, match=words) as raised:
        await cloud.machines()
    (found,) = await cloud.check([])
    assert (found.subject, found.level) == ("credentials", Level.ERROR)
    assert found.remedy
    for shown in (str(raised.value), repr(found)):
        assert PASSWORD not in shown
        assert "wrong-secret" not in shown


async def test_credentials_that_are_not_there(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    (tenant.directory / "one_auth").unlink()
    (found,) = await cloud.check([])
    assert found.level is Level.ERROR
    assert "No such file" in found.text

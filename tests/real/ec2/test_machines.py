"""What the EC2 cloud makes, sees and ends: looked at with the account's own eyes."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_machine import Ec2Settings, InstanceType
from gridtide.clouds.protocol import Level
from gridtide.errors import AuthenticationFailed, ImageNotFound, LaunchRejected
from gridtide.model.ids import CloudName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState
from gridtide.model.resources import Resources
from gridtide.testing.fault_proxy import Answer, Call, FaultProxy, HttpFault, ec2_action
from tests.real.ec2.account import IMAGE, REGION, SETTINGS, Account, refusal, request, with_types

W = WorkerId("grid-1")


@pytest.fixture
async def cloud(account: Account) -> AsyncIterator[Ec2Cloud]:
    made = account.cloud()
    yield made
    await made.close()


async def launched(cloud: Ec2Cloud, user_data: bytes = b"#cloud-config\n") -> MachineId:
    machine = (await cloud.launch([request(W, user_data)]))[W]
    assert isinstance(machine, str), machine
    return MachineId(machine)


async def test_a_machine_is_what_was_asked_for(account: Account) -> None:
    group = account.client.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    account.client.create_key_pair(KeyName="admin")
    zone = f"{REGION}b"
    cloud = account.cloud(
        with_types(
            key_pair="admin",
            security_groups=(group,),
            zones=(Zone(zone),),
            tags={"project": "alice"},
            volume_type="gp3",
        )
    )
    machine = await launched(cloud, b"\x00\xffjoin")
    (made,) = account.instances()
    tags = {each["Key"]: each["Value"] for each in made["Tags"]}
    assert tags == {
        "Name": W,
        "gridtide:site": "torino/burst",
        "gridtide:worker": W,
        "gridtide:group": "grid",
        "project": "alice",
    }
    assert (made["InstanceType"], made["KeyName"], made["Placement"]["AvailabilityZone"]) == ("m5.large", "admin", zone)
    assert [each["GroupId"] for each in made["SecurityGroups"]] == [group]
    assert made["MetadataOptions"]["HttpTokens"] == "required"
    told = account.client.describe_instance_attribute(InstanceId=machine, Attribute="userData")["UserData"]["Value"]
    assert base64.b64decode(told) == b"\x00\xffjoin"
    (volume,) = account.client.describe_volumes()["Volumes"]
    assert volume["Size"] == 20
    (seen,) = await cloud.machines()
    assert (seen.id, seen.worker, seen.state, seen.zone) == (machine, W, MachineState.RUNNING, zone)
    assert seen.resources == Resources(2, 8192, 20480)
    await cloud.close()


async def test_nothing_is_left_of_an_ended_machine(account: Account, cloud: Ec2Cloud) -> None:
    """The image says that its volume shall stay."""
    machine = await launched(cloud)
    assert account.volumes() == 1
    await cloud.terminate([machine])
    assert account.volumes() == 0
    assert not account.instances()
    (seen,) = await cloud.machines()
    assert seen.state is MachineState.GONE


async def test_another_join_token_makes_no_second_machine(account: Account, cloud: Ec2Cloud) -> None:
    first = await launched(cloud, b"token 1")
    assert await launched(account.cloud(), b"token 2") == first
    assert len(account.instances()) == 1


async def test_two_clouds_of_a_site_in_one_account_do_not_take_each_others_machines(account: Account) -> None:
    spot, burst = account.cloud(with_types(spot=True), name="spot"), account.cloud()
    await spot.launch([request("grid-1")])
    await burst.launch([request("grid-1"), request("grid-2")])
    assert sorted(str(each.worker) for each in await spot.machines()) == ["None", "None", "grid-1"]
    assert sorted(str(each.worker) for each in await burst.machines()) == ["None", "grid-1", "grid-2"]
    await asyncio.gather(spot.close(), burst.close())


async def test_a_foreign_machine_counts_with_its_size(account: Account, cloud: Ec2Cloud) -> None:
    await account.admin(
        lambda client: client.run_instances(ImageId="ami-12345678", InstanceType="r5.2xlarge", MinCount=1, MaxCount=1)
    )
    (seen,) = await cloud.machines()
    assert (seen.worker, seen.resources) == (None, Resources(8, 65536))


async def test_a_spot_machine_that_is_given_notice(account: Account) -> None:
    cloud = account.cloud(with_types(spot=True))
    answers = await cloud.launch([request("grid-1"), request("grid-2")])
    assert {each.notice for each in await cloud.machines()} == {""}
    (made, _) = account.instances()
    assert made["InstanceLifecycle"] == "spot"
    doomed = str(answers[W])
    account.client.create_tags(Resources=[doomed], Tags=[{"Key": "test:interrupt", "Value": "marked-for-termination"}])
    notices = {each.id: each.notice for each in await cloud.machines()}
    assert notices.pop(MachineId(doomed)) == "Your instance is marked-for-termination."
    assert list(notices.values()) == [""]
    await cloud.close()


async def test_on_demand_machines_cost_no_question_about_notices(account: Account) -> None:
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        cloud = account.cloud(endpoint=proxy.url)
        await cloud.launch([request("grid-1"), request("grid-2"), request("grid-3")])
        for _ in range(3):
            await cloud.machines()
        assert proxy.calls == {
            "DescribeImages": 1,
            "RunInstances": 3,
            "DescribeInstances": 3,
            "DescribeInstanceTypes": 1,
        }
        await cloud.close()


async def test_images_by_id_by_name_and_by_tag(account: Account, cloud: Ec2Cloud) -> None:
    def add(name: str, tag: str) -> str:
        image = account.client.register_image(Name=name, RootDeviceName="/dev/xvda")["ImageId"]
        account.client.create_tags(Resources=[image], Tags=[{"Key": "Name", "Value": tag}])
        return image

    older, newer = add("build-1", "worker"), add("build-2", "worker")
    for name, wanted in ((older, {older}), ("build-1", {older}), ("worker", {older, newer})):
        answers = await cloud.launch([replace(request(f"grid-{name}"), image=name)])
        assert all(isinstance(answer, str) for answer in answers.values()), answers
        assert {each["ImageId"] for each in account.instances()} <= {older, newer}
        assert account.instances()[-1]["ImageId"] in wanted
    for name in ("ami-00000000", "work*", "nothing"):
        (error,) = (await cloud.launch([replace(request("grid-x"), image=name)])).values()
        assert isinstance(error, ImageNotFound), name


async def test_a_launch_template_says_what_the_site_file_does_not(account: Account) -> None:
    account.client.create_key_pair(KeyName="from-template")
    image = account.client.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    account.client.create_launch_template(
        LaunchTemplateName="worker", LaunchTemplateData={"KeyName": "from-template", "ImageId": image}
    )
    cloud = account.cloud(with_types(launch_template="worker:1"))
    (answer,) = (await cloud.launch([replace(request(W), image=None)])).values()
    assert isinstance(answer, str)
    (made,) = account.instances()
    assert (made["KeyName"], made["ImageId"]) == ("from-template", image)
    await cloud.close()


async def test_nothing_is_left_of_a_machine_of_a_launch_template(account: Account) -> None:
    """Image and template say that their volumes shall stay, and the template adds one of its own."""
    image = account.client.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    account.client.create_launch_template(
        LaunchTemplateName="worker",
        LaunchTemplateData={
            "ImageId": image,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 7, "DeleteOnTermination": False}}],
        },
    )
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        cloud = account.cloud(with_types(launch_template="worker"), endpoint=proxy.url)
        answers = await cloud.launch([replace(request(f"grid-{number}"), image=None) for number in range(3)])
        assert proxy.calls["DescribeLaunchTemplateVersions"] == 1
        assert (await cloud.check([]))[-1].subject == "launch of worker"
        assert (await cloud.check([]))[-1].level is Level.OK
        machines = [MachineId(machine) for machine in answers.values() if isinstance(machine, str)]
        assert sorted(each["Size"] for each in account.client.describe_volumes()["Volumes"]) == 3 * [7] + 3 * [20]
        assert await cloud.terminate(machines) == dict.fromkeys(machines)
        assert account.volumes() == 0
        await cloud.close()


async def test_a_launch_template_without_an_image_or_that_is_not_there(account: Account) -> None:
    account.client.create_launch_template(LaunchTemplateName="worker", LaunchTemplateData={"KeyName": "admin"})
    for written, words in (("worker", "nor does launch template worker"), ("nothing", "InvalidLaunchTemplateName")):
        cloud = account.cloud(with_types(launch_template=written))
        (error,) = (await cloud.launch([replace(request(W), image=None)])).values()
        assert isinstance(error, LaunchRejected)
        assert words in str(error)
        await cloud.close()
    assert not account.instances()


async def test_what_cannot_be_launched_is_refused_without_a_call(account: Account) -> None:
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        cloud = account.cloud(endpoint=proxy.url)
        for bad in (request(W, b"x" * 16_385), request(W, shape="m5.metal"), replace(request(W), image=None)):
            assert isinstance((await cloud.launch([bad]))[W], LaunchRejected)
        assert not proxy.calls
        await cloud.close()


async def test_an_endpoint_that_does_not_describe_types(account: Account) -> None:
    """Some that speak EC2's API do not: the site file says what its shapes have."""
    known = InstanceType(ShapeName("m5.large"), cores=2, memory=4096)
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        proxy.add(HttpFault.ANSWER, call="DescribeInstanceTypes", answer=refusal("InvalidAction"))
        cloud = account.cloud(Ec2Settings((known,), rates=SETTINGS.rates), endpoint=proxy.url)
        assert [each.resources for each in await cloud.shapes()] == [Resources(2, 4096, 20480)]
        await launched(cloud)
        await account.admin(
            lambda client: client.run_instances(ImageId="ami-12345678", InstanceType="t3.nano", MinCount=1, MaxCount=1)
        )
        for _ in range(3):
            assert sorted(each.resources.memory for each in await cloud.machines()) == [0, 4096]
        assert proxy.calls["DescribeInstanceTypes"] == 1
        await cloud.close()


async def test_the_console_is_passed_on(account: Account, cloud: Ec2Cloud) -> None:
    machine = await launched(cloud)
    assert await cloud.console(machine, most=10) is not None
    assert await cloud.console(MachineId("i-00000000"), most=10) is None
    assert await cloud.console(MachineId("grid-1"), most=10) is None


async def test_check_says_what_is_there_and_what_is_not(account: Account) -> None:
    settings = replace(SETTINGS, types=(*SETTINGS.types, InstanceType(ShapeName("m5.enormous"))))
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        cloud = account.cloud(settings, endpoint=proxy.url)
        findings = {each.subject: each for each in await cloud.check([IMAGE, "nothing"])}
        assert {name: each.level for name, each in findings.items()} == {
            "credentials": Level.OK,
            "connection": Level.OK,
            "shape m5.large": Level.OK,
            "shape c5.xlarge": Level.OK,
            "shape m5.enormous": Level.ERROR,
            f"image {IMAGE}": Level.OK,
            f"launch of {IMAGE}": Level.OK,
            "image nothing": Level.ERROR,
        }
        assert not account.instances()
        proxy.add(HttpFault.ANSWER, call="RunInstances", answer=refusal("UnauthorizedOperation", 403))
        findings = {each.subject: each for each in await cloud.check([IMAGE])}
        assert findings[f"launch of {IMAGE}"].level is Level.ERROR
        proxy.add(HttpFault.ANSWER, answer=refusal("AuthFailure", 401))
        assert [each.level for each in await cloud.check([IMAGE])] == [Level.OK, Level.ERROR]
        await cloud.close()


async def test_a_rehearsal_that_makes_a_machine_is_told_and_undone(account: Account) -> None:
    """Endpoints that are not Amazon's may not know DryRun."""
    async with FaultProxy(account.address, name=ec2_action) as proxy:
        cloud = account.cloud(endpoint=proxy.url)
        machine = await launched(cloud)
        made = f"<RunInstancesResponse><instancesSet><item><instanceId>{machine}</instanceId></item></instancesSet>"
        answer = Answer(200, f"{made}</RunInstancesResponse>".encode(), {"content-type": "text/xml"})
        proxy.add(HttpFault.ANSWER, call="RunInstances", answer=answer)
        findings = {each.subject: each for each in await cloud.check([IMAGE])}
        finding = findings[f"launch of {IMAGE}"]
        assert finding.level is Level.ERROR
        assert machine in finding.text
        assert "ended again" in finding.text
        assert not account.instances()
        await cloud.close()


async def test_without_credentials_the_error_says_so(account: Account) -> None:
    access = replace(account.access(), credentials=account.directory / "none")
    cloud = Ec2Cloud(CloudName("burst"), "torino", access, SETTINGS)
    (finding,) = await cloud.check([])
    assert (finding.subject, finding.level) == ("credentials", Level.ERROR)
    with pytest.raises(AuthenticationFailed, match="credentials"):
        await cloud.machines()
    await cloud.close()


async def test_renewed_credentials_are_read_again(account: Account) -> None:
    keys: list[str] = []

    def note(call: Call) -> str:
        keys.append(call.headers["authorization"])
        return ec2_action(call)

    async with FaultProxy(account.address, name=note) as proxy:
        proxy.add(HttpFault.ANSWER, call="DescribeInstances", times=1, answer=refusal("AuthFailure", 401))
        cloud = account.cloud(endpoint=proxy.url)
        findings = await cloud.check([])
        assert findings[-1].level is Level.ERROR
        (account.directory / "credentials").write_text(
            "[default]\naws_access_key_id = renewed\naws_secret_access_key = renewed\n"
        )
        await cloud.machines()
        assert "Credential=renewed/" in keys[-1]
        await cloud.close()

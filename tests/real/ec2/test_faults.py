"""What the driver makes of an endpoint in trouble: each fault of the proxy, in front of moto, for each kind of call."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_rate import Rate, Rates
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.machines import MachineState
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault, ec2_action
from tests.real.ec2.account import SETTINGS, Account, refusal, request, with_types

UNSEEN = [HttpFault.LOST, HttpFault.CUT, HttpFault.TRUNCATED, HttpFault.HANG_AFTER]
NOT_DONE = [HttpFault.REFUSED, HttpFault.HANG]
W = WorkerId("grid-1")


BAD_ANSWERS = [
    Answer(500),
    Answer(503, b"<html><body>Service Unavailable</body></html>", {"content-type": "text/html"}),
    Answer(502, b"Bad Gateway"),
    Answer(429, b'{"message": "slow down"}', {"retry-after": "1"}),
    refusal("RequestLimitExceeded", 503),
    refusal("InternalError", 500),
    Answer(200, b"", {"content-type": "text/xml"}),
    Answer(200, b"<RunInstancesResponse/>", {"content-type": "text/xml"}),
    Answer(200, b"hello"),
]


@pytest.fixture
async def proxy(account: Account) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(account.address, name=ec2_action) as made:
        yield made


@pytest.fixture
async def cloud(account: Account, proxy: FaultProxy) -> AsyncIterator[Ec2Cloud]:
    made = account.cloud(endpoint=proxy.url, timeout=1.5)
    yield made
    await made.close()


async def launch_one(cloud: Ec2Cloud) -> MachineId | CloudError:
    return (await cloud.launch([request(W)]))[W]


async def launched(cloud: Ec2Cloud) -> MachineId:
    machine = await launch_one(cloud)
    assert isinstance(machine, str), machine
    return MachineId(machine)


# --- passing faults are got over, and double nothing


@pytest.mark.parametrize("fault", [*UNSEEN, *NOT_DONE])
async def test_a_launch_whose_answer_is_lost_makes_one_machine(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, fault: HttpFault
) -> None:
    proxy.add(fault, call="RunInstances", times=2)
    machine = await launched(cloud)
    assert proxy.calls["RunInstances"] == 3
    assert [each["InstanceId"] for each in account.instances()] == [machine]


@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=lambda answer: f"{answer.status} {answer.body[:25]!r}")
async def test_a_launch_after_a_bad_answer_makes_one_machine(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, answer: Answer
) -> None:
    proxy.add(HttpFault.ANSWER, call="RunInstances", times=1, answer=answer)
    machine = await launched(cloud)
    assert [each["InstanceId"] for each in account.instances()] == [machine]


@pytest.mark.parametrize("fault", [*UNSEEN, *NOT_DONE])
async def test_a_listing_is_whole_or_an_error(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, fault: HttpFault
) -> None:
    await cloud.launch([request(f"grid-{number}") for number in range(12)])
    proxy.add(fault, call="DescribeInstances", times=1)
    assert len(await cloud.machines()) == 12
    assert proxy.calls["DescribeInstances"] == 4, "three pages, one of them twice"


@pytest.mark.parametrize("fault", [*UNSEEN, *NOT_DONE])
async def test_a_terminate_is_got_through(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, fault: HttpFault
) -> None:
    machine = await launched(cloud)
    proxy.add(fault, call="TerminateInstances", times=1)
    assert await cloud.terminate([machine]) == {machine: None}
    assert not account.instances()


# --- lasting faults become typed errors


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's patience of a minute, in four seconds."""
    monkeypatch.setattr("gridtide.clouds.ec2.LAUNCH_PATIENCE", 4.0)
    monkeypatch.setattr("gridtide.clouds.ec2.READ_PATIENCE", 4.0)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [HttpFault.LOST, HttpFault.REFUSED, HttpFault.HANG_AFTER])
async def test_a_launch_that_stays_unanswered_is_unknown(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, fault: HttpFault
) -> None:
    proxy.add(fault, call="RunInstances")
    assert type(await launch_one(cloud)) is CloudUnavailable
    proxy.heal()
    made = [each.worker for each in await cloud.machines()]
    assert made == ([] if fault is HttpFault.REFUSED else [W]), "the listing tells what became of it"


@pytest.mark.usefixtures("hasty")
async def test_what_was_throttled_throughout_was_not_made(account: Account, proxy: FaultProxy, cloud: Ec2Cloud) -> None:
    proxy.add(HttpFault.ANSWER, call="RunInstances", answer=refusal("RequestLimitExceeded", 503))
    error = await launch_one(cloud)
    assert isinstance(error, Throttled)
    assert error.retry_after is not None
    assert proxy.calls["RunInstances"] < 8, "pauses grow"
    assert not account.instances()


@pytest.mark.usefixtures("hasty")
async def test_throttled_after_a_lost_answer_is_still_unknown(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud
) -> None:
    proxy.add(HttpFault.LOST, call="RunInstances", times=1)
    proxy.add(HttpFault.ANSWER, call="RunInstances", answer=refusal("Throttling", 400))
    assert type(await launch_one(cloud)) is CloudUnavailable
    assert len(account.instances()) == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("DescribeInstances", HttpFault.REFUSED),
        ("DescribeInstances", HttpFault.HANG),
        ("DescribeInstanceTypes", HttpFault.TRUNCATED),
    ],
)
async def test_a_listing_that_cannot_be_had_raises(
    proxy: FaultProxy, cloud: Ec2Cloud, call: str, fault: HttpFault
) -> None:
    await launched(cloud)
    proxy.add(fault, call=call)
    with pytest.raises(CloudUnavailable):
        await cloud.machines()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("InsufficientInstanceCapacity", 500), NoCapacity),
        (refusal("VcpuLimitExceeded"), QuotaExceeded),
        (refusal("UnauthorizedOperation", 403), AuthenticationFailed),
        (refusal("InvalidParameterValue"), LaunchRejected),
    ],
)
async def test_a_refusal_is_not_repeated(proxy: FaultProxy, cloud: Ec2Cloud, answer: Answer, kind: type) -> None:
    proxy.add(HttpFault.ANSWER, call="RunInstances", answer=answer)
    assert isinstance(await launch_one(cloud), kind)
    assert proxy.calls["RunInstances"] == 1


async def test_one_refused_machine_of_a_bulk_launch(account: Account, proxy: FaultProxy, cloud: Ec2Cloud) -> None:
    proxy.add(HttpFault.ANSWER, call="RunInstances", times=1, answer=refusal("InsufficientInstanceCapacity", 500))
    answers = await cloud.launch([request(f"grid-{number}") for number in range(5)])
    refused = [answer for answer in answers.values() if isinstance(answer, NoCapacity)]
    assert (len(refused), len(account.instances())) == (1, 4)


async def test_an_old_listing_only_lags(account: Account, proxy: FaultProxy, cloud: Ec2Cloud) -> None:
    assert await cloud.machines() == ()
    machine = await launched(cloud)
    proxy.add(HttpFault.OLD, call="DescribeInstances", times=1)
    assert await cloud.machines() == (), "as `settle` allows"
    assert [each.id for each in await cloud.machines()] == [machine]


async def test_pages_that_go_round_in_a_circle(account: Account, proxy: FaultProxy, cloud: Ec2Cloud) -> None:
    page = b"<DescribeInstancesResponse><reservationSet/><nextToken>again</nextToken></DescribeInstancesResponse>"
    proxy.add(HttpFault.ANSWER, call="DescribeInstances", answer=Answer(200, page, {"content-type": "text/xml"}))
    with pytest.raises(CloudUnavailable, match="circle"):
        await cloud.machines()
    assert proxy.calls["DescribeInstances"] == 2


# --- ending in part


@pytest.mark.parametrize("number", [1, 7])
async def test_machines_that_are_gone_do_not_keep_the_others(
    account: Account, proxy: FaultProxy, cloud: Ec2Cloud, number: int
) -> None:
    made = await cloud.launch([request(f"grid-{each}") for each in range(number)])
    there = [MachineId(machine) for machine in made.values() if isinstance(machine, str)]
    gone = [MachineId(f"i-0000000000000000{each}") for each in range(2)]
    order = [*there[:2], gone[0], *there[2:], gone[1]]
    assert await cloud.terminate(order) == dict.fromkeys(order)
    assert not account.instances()
    assert proxy.calls["TerminateInstances"] <= 1 + 4 * (number + 2).bit_length()


async def test_a_protected_machine_is_told_alone(account: Account, proxy: FaultProxy, cloud: Ec2Cloud) -> None:
    made = await cloud.launch([request(f"grid-{each}") for each in range(4)])
    machines = [MachineId(machine) for machine in made.values() if isinstance(machine, str)]
    await account.admin(
        lambda client: client.modify_instance_attribute(InstanceId=machines[2], DisableApiTermination={"Value": True})
    )
    answers = await cloud.terminate(machines)
    assert [type(answer) for answer in answers.values()] == [type(None), type(None), LaunchRejected, type(None)]
    assert [each["InstanceId"] for each in account.instances()] == [machines[2]]


# --- the rate


async def test_no_more_calls_than_the_rate_allows(account: Account, proxy: FaultProxy) -> None:
    slow = with_types(rates=Rates(Rate(3, 10), SETTINGS.rates.terminate, SETTINGS.rates.read))
    cloud = account.cloud(slow, endpoint=proxy.url)
    began = asyncio.get_running_loop().time()
    answers = await cloud.launch([request(f"grid-{each}") for each in range(8)])
    assert all(isinstance(answer, str) for answer in answers.values())
    assert asyncio.get_running_loop().time() - began >= 0.5, "3 at once, then 10 a second"
    await cloud.close()


@pytest.mark.usefixtures("hasty")
async def test_who_would_wait_too_long_is_throttled_without_a_call(account: Account, proxy: FaultProxy) -> None:
    slow = with_types(rates=Rates(Rate(2, 0.1), SETTINGS.rates.terminate, SETTINGS.rates.read))
    cloud = account.cloud(slow, endpoint=proxy.url, timeout=1.5)
    answers = await cloud.launch([request(f"grid-{each}") for each in range(5)])
    throttled = [answer for answer in answers.values() if isinstance(answer, Throttled)]
    assert (len(throttled), proxy.calls["RunInstances"]) == (3, 2)
    assert all(5.0 < (error.retry_after or 0.0) <= 10.0 for error in throttled)
    await cloud.close()


async def test_a_cloud_that_hangs_holds_up_no_other(account: Account, proxy: FaultProxy) -> None:
    proxy.add(HttpFault.HANG)
    hanging = account.cloud(endpoint=proxy.url, timeout=15.0)
    calls = [asyncio.create_task(hanging.machines()) for _ in range(50)]
    await asyncio.sleep(0.1)
    healthy = account.cloud()
    async with asyncio.timeout(14.0):
        assert isinstance(await launch_one(healthy), str)
        assert [each.state for each in await healthy.machines()] == [MachineState.RUNNING]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await hanging.close()
    await healthy.close()

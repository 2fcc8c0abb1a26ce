"""What the driver makes of a cloud in trouble: the proxy's faults in front of real Nova, for each kind of call."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gridtide.clouds.openstack import OpenstackCloud
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
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault
from tests.real.openstack.nova import END, LAUNCH, LIST, nova_call, refusal
from tests.real.openstack.project import Project, request

W = WorkerId("grid-1")
UNSEEN = [HttpFault.LOST, HttpFault.CUT, HttpFault.TRUNCATED, HttpFault.HANG_AFTER]
NOT_DONE = [HttpFault.REFUSED, HttpFault.HANG]


@pytest.fixture
async def proxy(project: Project) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(project.compute, name=nova_call) as made:
        yield made


@pytest.fixture
async def cloud(project: Project, proxy: FaultProxy) -> AsyncIterator[OpenstackCloud]:
    made = project.cloud(endpoint=proxy.url, timeout=1.5)
    await made.shapes()
    yield made
    await made.close()


async def launch_one(cloud: OpenstackCloud) -> MachineId | CloudError:
    return (await cloud.launch([request(W)]))[W]


async def launched(cloud: OpenstackCloud) -> MachineId:
    machine = await launch_one(cloud)
    assert isinstance(machine, str), machine
    return MachineId(machine)


async def servers(project: Project) -> list[str]:
    return [each["id"] for each in await asyncio.to_thread(project.servers)]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's patience, in two seconds."""
    monkeypatch.setattr("gridtide.clouds.openstack.READ_PATIENCE", 2.0)
    monkeypatch.setattr("gridtide.clouds.making.LOOKS", (0.3, 0.5, 0.5))


# --- launches: looked for, and never made twice


async def test_a_launch_whose_answer_is_lost_is_found(
    project: Project, proxy: FaultProxy, cloud: OpenstackCloud
) -> None:
    for number, fault in enumerate(UNSEEN, start=1):
        proxy.add(fault, call=LAUNCH, times=1)
        worker = WorkerId(f"grid-{fault}")
        machine = (await cloud.launch([request(worker)]))[worker]
        assert isinstance(machine, str), (fault, machine)
        assert proxy.calls[LAUNCH] == number
        assert machine in await servers(project)
    assert len(await servers(project)) == len(UNSEEN)


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(503, b"<html>Service Unavailable</html>"), Answer(429, b"", {"retry-after": "1"})],
    ids=lambda answer: str(answer.status),
)
async def test_a_launch_that_was_refused_for_a_moment_is_made_once(
    project: Project, proxy: FaultProxy, cloud: OpenstackCloud, answer: Answer
) -> None:
    proxy.add(HttpFault.ANSWER, call=LAUNCH, times=1, answer=answer)
    machine = await launched(cloud)
    assert proxy.calls[LAUNCH] == 2
    assert await servers(project) == [machine]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "fault", [*NOT_DONE, Answer(502), Answer(504), Answer(202, b"<html>hello</html>"), Answer(202, b"[]")]
)
async def test_a_launch_without_an_answer_that_is_not_found_is_unknown_and_not_repeated(
    proxy: FaultProxy, cloud: OpenstackCloud, fault: HttpFault | Answer
) -> None:
    if isinstance(fault, Answer):
        proxy.add(HttpFault.ANSWER, call=LAUNCH, times=1, answer=fault)
    else:
        proxy.add(fault, call=LAUNCH, times=1)
    assert type(await launch_one(cloud)) is CloudUnavailable
    assert proxy.calls[LAUNCH] == 1
    assert not await cloud.machines()


@pytest.mark.usefixtures("hasty")
async def test_nova_that_keeps_failing_is_not_stormed(
    project: Project, proxy: FaultProxy, cloud: OpenstackCloud
) -> None:
    proxy.add(HttpFault.ANSWER, call=LAUNCH, answer=refusal(500, "computeFault", "Unexpected API Error."))
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert proxy.calls[LAUNCH] == 4
    assert not await servers(project)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(403, "forbidden", "Quota exceeded for cores: Requested 1, but already used 2 of 2"), QuotaExceeded),
        (refusal(403, "forbidden", "Policy doesn't allow os_compute_api:servers:create."), AuthenticationFailed),
        (refusal(400, "badRequest", "Flavor's disk is too small for requested image."), LaunchRejected),
        (refusal(400, "badRequest", "No more IP addresses available on network 1."), NoCapacity),
        (refusal(409, "conflictingRequest", "Multiple possible networks found."), LaunchRejected),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_a_refusal_is_passed_on_at_once(
    proxy: FaultProxy, cloud: OpenstackCloud, answer: Answer, kind: type[CloudError]
) -> None:
    proxy.add(HttpFault.ANSWER, call=LAUNCH, answer=answer)
    assert isinstance(await launch_one(cloud), kind)
    assert proxy.calls[LAUNCH] == 1


async def test_a_bulk_launch_that_is_refused_is_no_storm(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    words = "Quota exceeded for cores: Requested 1, but already used 2 of 2 cores"
    proxy.add(HttpFault.ANSWER, call=LAUNCH, answer=refusal(403, "forbidden", words))
    answers = await cloud.launch([request(f"grid-{number}") for number in range(60)])
    assert {type(answer) for answer in answers.values()} == {QuotaExceeded}
    assert proxy.calls[LAUNCH] <= 8, "as many as are under way at once"


async def test_what_was_throttled_throughout_was_not_made(
    monkeypatch: pytest.MonkeyPatch, project: Project, proxy: FaultProxy, cloud: OpenstackCloud
) -> None:
    monkeypatch.setattr("gridtide.clouds.openstack.LAUNCH_PATIENCE", 4.0)
    proxy.add(HttpFault.ANSWER, call=LAUNCH, answer=Answer(429, b"", {"retry-after": "1"}))
    error = await launch_one(cloud)
    assert isinstance(error, Throttled)
    assert error.retry_after == 1.0
    assert proxy.calls[LAUNCH] <= 4
    assert not await servers(project)


async def test_one_lost_answer_does_not_hold_up_the_other_launches(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    proxy.add(HttpFault.LOST, call=LAUNCH, times=2)
    answers = await cloud.launch([request(f"grid-{number}") for number in range(5)])
    assert all(isinstance(answer, str) for answer in answers.values()), answers
    assert len(set(answers.values())) == 5
    assert proxy.calls[LAUNCH] == 5


# --- listings: whole, or an error


async def test_a_listing_is_whole_or_an_error(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    await cloud.launch([request(f"grid-{number}") for number in range(6)])
    for fault in [*UNSEEN, *NOT_DONE]:
        proxy.add(fault, call=LIST, times=1)
        assert len(await cloud.machines()) == 6, fault
        assert proxy.struck[LIST, fault] == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"404 page not found"),
        refusal(404, "itemNotFound", "The resource could not be found."),
        Answer(200, b"{}"),
        Answer(200, b'{"servers": [{}]}'),
        Answer(200, b'{"servers": [{"id": "1", "metadata": null}]}'),
        Answer(200, b""),
        Answer(200, b'{"servers": null}'),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
async def test_nonsense_is_no_empty_listing(proxy: FaultProxy, cloud: OpenstackCloud, answer: Answer) -> None:
    proxy.add(HttpFault.ANSWER, call=LIST, answer=answer)
    with pytest.raises(CloudError):
        await cloud.machines()


async def test_a_cell_that_is_down_makes_nobody_foreign_or_gone(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    row = f'{{"servers": [{{"id": "{machine}", "status": "UNKNOWN", "tenant_id": "t", "links": []}}]}}'
    proxy.add(HttpFault.ANSWER, call=LIST, times=1, answer=Answer(200, row.encode()))
    (found,) = await cloud.machines()
    assert (found.id, found.worker, found.state) == (machine, W, "unknown")
    other = row.replace(str(machine), "70a599e0-31e7-49b7-b260-868f441e862b")
    proxy.add(HttpFault.ANSWER, call=LIST, times=1, answer=Answer(200, other.encode()))
    with pytest.raises(CloudUnavailable, match="cell of Nova is down"):
        await cloud.machines()


# --- terminates


async def test_a_terminate_is_got_through(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    faults = [*UNSEEN, *NOT_DONE]
    made = await cloud.launch([request(fault) for fault in faults])
    for fault in faults:
        machine = made[WorkerId(fault)]
        assert isinstance(machine, str)
        proxy.add(fault, call=END, times=1)
        assert await cloud.terminate([machine]) == {machine: None}, fault
        assert proxy.struck[END, fault] == 1
    assert {each.state for each in await cloud.machines()} <= {MachineState.ENDING, MachineState.GONE}


@pytest.mark.usefixtures("hasty")
async def test_not_found_by_a_gateway_is_not_gone(proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    machine = await launched(cloud)
    proxy.add(HttpFault.ANSWER, call=END, answer=Answer(404, b"404 page not found"))
    assert isinstance((await cloud.terminate([machine]))[machine], CloudUnavailable)


# --- all at once


async def test_a_fifth_of_all_calls_fails(project: Project, proxy: FaultProxy, cloud: OpenstackCloud) -> None:
    """None lost, none doubled: what was not answered is told by the next listing."""
    workers = [WorkerId(f"grid-{number:02}") for number in range(8)]
    mix: list[HttpFault | Answer] = [
        Answer(500),
        Answer(503),
        Answer(429),
        HttpFault.HANG,
        HttpFault.LOST,
        HttpFault.REFUSED,
        HttpFault.CUT,
    ]
    proxy.mix(0.2, mix)
    answers = await cloud.launch([request(worker) for worker in workers])
    assert answers.keys() == set(workers)
    assert {type(answer) for answer in answers.values()} <= {str, CloudUnavailable}
    listed = {each.worker: each.id for each in await cloud.machines()}
    made = await asyncio.to_thread(project.servers)
    assert len(made) == len({each["name"] for each in made}), "doubled"
    assert listed == {worker: answer for worker, answer in answers.items() if isinstance(answer, str)}
    ended = await cloud.terminate(list(listed.values()))
    assert set(ended.values()) == {None}

"""What the driver makes of an OpenNebula in trouble: faults of the proxy in front of it, and refusals of its own."""

import asyncio
import time
import xmlrpc.client
from collections.abc import AsyncIterator

import pytest

from gridtide.clouds.opennebula import OpennebulaCloud
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.machines import MachineState
from gridtide.testing.fault_proxy import Answer, FaultProxy, HttpFault, xmlrpc_method
from tests.real.opennebula import documents
from tests.real.opennebula.server import ACTIVE, EPILOG, HOLD, OURS, PROLOG, RUNNING, Hook
from tests.real.opennebula.server import Answer as Given
from tests.real.opennebula.tenant import Tenant, having
from tests.real.opennebula.tenant import request as asked

UNSEEN = [HttpFault.LOST, HttpFault.CUT, HttpFault.TRUNCATED, HttpFault.HANG_AFTER]
NOT_DONE = [HttpFault.REFUSED, HttpFault.HANG]
INSTANTIATE = "one.template.instantiate"
W = WorkerId("grid-1")
TAGS = [("GRIDTIDE_SITE", "torino/private"), ("GRIDTIDE_WORKER", W)]


def xml(text: str) -> Answer:
    return Answer(200, text.encode(), {"content-type": "text/xml"})


def answered(*values: object) -> Answer:
    """A proper answer of XML-RPC."""
    return xml(xmlrpc.client.dumps((list(values),), methodresponse=True))


NONSENSE = [
    Answer(502, b"Bad Gateway"),
    Answer(404, b"<html>not here</html>"),
    xml(""),
    xml("hello"),
    xml("<methodResponse/>"),
    answered(True),
    answered("yes", 40, 0),
    answered(True, "forty", 0),
    answered(True, -1, 0),
    answered(True, True, 0),
    answered(False, "no leader", 0x10000),
]
OVER = [Answer(500), Answer(503, b"<html>down</html>"), answered(False, "[x] in election mode", 0x2000, -1, 0)]


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's patience, in hundredths."""
    monkeypatch.setattr("gridtide.clouds.making.LOOKS", (0.01, 0.02, 0.03, 0.04))
    monkeypatch.setattr("gridtide.clouds.repeating.FIRST_PAUSE", 0.02)
    monkeypatch.setattr("gridtide.clouds.repeating.LONGEST_PAUSE", 0.2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing that cannot be had need not be waited for."""
    monkeypatch.setattr("gridtide.clouds.opennebula.READ_PATIENCE", 1.5)


@pytest.fixture
async def proxy(tenant: Tenant) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(tenant.address.removesuffix("/RPC2"), name=xmlrpc_method) as made:
        yield made


@pytest.fixture
async def cloud(tenant: Tenant, proxy: FaultProxy, request: pytest.FixtureRequest) -> AsyncIterator[OpennebulaCloud]:
    """With the usual time for a call; less where one of them hangs."""
    hangs = any(fault in request.node.name for fault in (HttpFault.HANG, HttpFault.HANG_AFTER))
    made = tenant.cloud(endpoint=proxy.url, timeout=2.5 if hangs else 20.0)
    yield made
    await made.close()


async def launch_one(cloud: OpennebulaCloud) -> MachineId | CloudError:
    return (await cloud.launch([asked(W)]))[W]


async def launched(cloud: OpennebulaCloud) -> MachineId:
    machine = await launch_one(cloud)
    assert isinstance(machine, str), machine
    return MachineId(machine)


def running(tenant: Tenant) -> list[MachineId]:
    return [MachineId(str(each.id)) for each in tenant.living() if each.life_cycle == RUNNING]


def refuse(wanted: str, answer: Given, times: int = 1_000_000) -> Hook:
    """A hook that answers calls of this method so."""
    left = times

    def hook(method: str, arguments: tuple[object, ...]) -> Given | None:
        nonlocal left
        if method != wanted or left == 0:
            return None
        left -= 1
        return answer

    return hook


# --- launching


@pytest.mark.parametrize("fault", UNSEEN)
async def test_a_launch_whose_answer_is_lost_makes_one_machine(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, fault: HttpFault
) -> None:
    proxy.add(fault, call=INSTANTIATE, times=2)
    machine = await launched(cloud)
    assert proxy.calls[INSTANTIATE] == 1, "it is looked for, and not made again"
    assert running(tenant) == tenant.ids() == [machine]


@pytest.mark.parametrize("fault", NOT_DONE)
async def test_a_launch_that_was_not_answered_is_unknown(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, fault: HttpFault
) -> None:
    proxy.add(fault, call=INSTANTIATE, times=1)
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert proxy.calls[INSTANTIATE] == 1
    assert tenant.ids() == []
    assert isinstance(await launch_one(cloud), str), "and a later one makes it"


@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: f"{answer.status} {answer.body[-90:-60]!r}")
async def test_a_launch_with_a_senseless_answer_is_unknown(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, answer: Answer
) -> None:
    proxy.add(HttpFault.ANSWER, call=INSTANTIATE, times=1, answer=answer)
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert proxy.calls[INSTANTIATE] == 1
    assert tenant.ids() == []


@pytest.mark.parametrize("answer", OVER, ids=lambda answer: str(answer.status))
async def test_a_launch_that_failed_inside_is_made_again_once_two_looks_have_missed_it(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, answer: Answer
) -> None:
    proxy.add(HttpFault.ANSWER, call=INSTANTIATE, times=2, answer=answer)
    machine = await launched(cloud)
    assert proxy.calls[INSTANTIATE] == 3
    assert running(tenant) == tenant.ids() == [machine]


async def test_a_launch_that_always_fails_inside_is_tried_four_times(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud
) -> None:
    proxy.add(HttpFault.ANSWER, call=INSTANTIATE, answer=Answer(500))
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert proxy.calls[INSTANTIATE] == 4


async def test_a_throttled_launch_is_made_later(tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud) -> None:
    proxy.add(HttpFault.ANSWER, call=INSTANTIATE, times=3, answer=Answer(429))
    assert running(tenant) == [] != [await launched(cloud)] == tenant.ids()
    assert proxy.calls[INSTANTIATE] == 4


async def test_what_was_throttled_throughout_was_not_made(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud
) -> None:
    proxy.add(HttpFault.ANSWER, call=INSTANTIATE, answer=Answer(429, b"", {"retry-after": "60"}))
    error = await launch_one(cloud)
    assert isinstance(error, Throttled)
    assert error.retry_after == 60.0
    assert tenant.ids() == []


async def test_who_would_wait_too_long_is_throttled_without_a_call(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = tenant.cloud(having(calls=1))
    await cloud.launch([asked("before")])
    monkeypatch.setattr("gridtide.clouds.opennebula.LAUNCH_PATIENCE", 4.0)
    tenant.nebula.hook = lambda method, arguments: time.sleep(1.0) if method == INSTANTIATE else None
    answers = await cloud.launch([asked(f"grid-{number}") for number in range(8)])
    throttled = [answer for answer in answers.values() if isinstance(answer, Throttled)]
    assert throttled
    assert len(throttled) == 8 + 1 - tenant.nebula.calls[INSTANTIATE]
    await cloud.close()


async def test_a_launch_that_failed_inside_is_not_made_again_unless_looks_have_missed_it(
    tenant: Tenant, cloud: OpennebulaCloud
) -> None:
    await cloud.launch([asked("before")])

    def break_down(method: str, arguments: tuple[object, ...]) -> Given | None:
        if method == INSTANTIATE:
            return (False, f"[{method}] Internal error", 0x2000)
        broken = method == "one.vmpool.info" and tenant.nebula.calls[INSTANTIATE] > 1
        return (False, f"[{method}] Wrong parameters", 0x1000) if broken else None

    tenant.nebula.hook = break_down
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert tenant.nebula.calls[INSTANTIATE] == 2


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (0x0100, "User couldn't be authenticated, aborting call.", AuthenticationFailed),
        (0x0200, "User [2] : Not authorized to perform USE IMAGE [7].", AuthenticationFailed),
        (0x0200, "User [2] : user [2] limit of 2 reached for VMS quota in VM.", QuotaExceeded),
        (0x0400, "Error getting image [7].", ImageNotFound),
        (0x0400, "Error getting virtual machine template [5].", LaunchRejected),
        (0x0800, "Virtual router templates cannot be instantiated", LaunchRejected),
        (0x1000, "Wrong parameters", LaunchRejected),
        (0x4000, "Error allocating a new virtual machine. Cannot get IP/MAC lease from virtual network 1.", NoCapacity),
        (0x4000, "Error allocating a new virtual machine. CPU attribute must be positive", LaunchRejected),
    ],
)
async def test_a_refusal_is_passed_on_and_not_repeated(
    tenant: Tenant, cloud: OpennebulaCloud, code: int, words: str, kind: type
) -> None:
    tenant.nebula.hook = refuse(INSTANTIATE, (False, f"[{INSTANTIATE}] {words}", code))
    answers = await cloud.launch([asked(f"grid-{number}") for number in range(12)])
    assert {type(answer) for answer in answers.values()} <= {kind, *kind.__subclasses__()}
    assert tenant.nebula.calls[INSTANTIATE] <= 4, "those under way; the others of its kind are not asked for"
    assert tenant.ids() == []


@pytest.mark.parametrize("code", [-501, -503, -506, -509])
async def test_a_call_that_the_server_does_not_take(tenant: Tenant, cloud: OpennebulaCloud, code: int) -> None:
    tenant.nebula.hook = refuse(INSTANTIATE, xmlrpc.client.Fault(code, "no"))
    assert isinstance(await launch_one(cloud), LaunchRejected)


async def test_another_fault_of_xmlrpc_says_nothing(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    tenant.nebula.hook = refuse(INSTANTIATE, xmlrpc.client.Fault(-504, "no"))
    assert isinstance(await launch_one(cloud), CloudUnavailable)


# --- one of a worker's machines runs, and no other ever does


async def test_of_two_on_hold_the_first_is_released_and_the_other_ended(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    first = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    second = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    assert await launch_one(cloud) == str(first)
    assert running(tenant) == tenant.ids() == [str(first)]
    assert not tenant.nebula.machine(second).ran


async def test_a_second_one_that_appears_beside_a_launch_never_runs(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    made: list[int] = []

    def another(method: str, arguments: tuple[object, ...]) -> None:
        """A call of a controller that died is carried out while ours is under way."""
        if method == INSTANTIATE and not made:
            made.append(tenant.nebula.make(OURS, W, [*TAGS], hold=True))

    tenant.nebula.hook = another
    assert await launch_one(cloud) == str(made[0]), "the first that was made"
    assert running(tenant) == tenant.ids() == [str(made[0])]
    assert tenant.nebula.calls[INSTANTIATE] == 1


async def test_one_that_runs_is_kept_and_the_one_on_hold_ended(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    held = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    runs = tenant.nebula.make(OURS, W, [*TAGS])
    assert await launch_one(cloud) == str(runs)
    assert tenant.ids() == [str(runs)]
    assert not tenant.nebula.machine(held).ran


async def test_where_one_is_ending_the_one_on_hold_is_ended_too(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    held = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    ending = tenant.nebula.make(OURS, W, [*TAGS])
    tenant.nebula.put(ending, ACTIVE, EPILOG)
    tenant.nebula.pace = 60.0
    await cloud.machines()
    assert tenant.ids() == [str(ending)]
    assert not tenant.nebula.machine(held).ran


async def test_of_two_that_run_one_that_is_not_ending_is_the_workers(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    ending, runs = (tenant.nebula.make(OURS, W, [*TAGS]) for _ in range(2))
    tenant.nebula.put(ending, ACTIVE, EPILOG)
    tenant.nebula.put(runs, ACTIVE, RUNNING)
    tenant.nebula.pace = 60.0
    assert await launch_one(cloud) == str(runs)
    assert tenant.ids() == [str(ending), str(runs)], "what is released is the controller's to end"


async def test_what_a_crash_left_on_hold_is_released_by_a_listing(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    left = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    theirs = tenant.nebula.make(OURS, "by hand", [], hold=True)
    assert [each.state for each in await cloud.machines()] == [MachineState.STARTING] * 2
    assert running(tenant) == [str(left)]
    assert tenant.nebula.machine(theirs).state == HOLD, "not ours to release"


async def test_check_releases_nothing(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    left = tenant.nebula.make(OURS, W, [*TAGS], hold=True)
    await cloud.check([])
    assert tenant.nebula.machine(left).state == HOLD


async def test_a_listing_amid_a_launch_releases_nothing(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    listed = asyncio.Event()
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def wait(method: str, arguments: tuple[object, ...]) -> None:
        """The launch has made its machine, and is held up when it looks again."""
        if tenant.nebula.calls[INSTANTIATE] and method != INSTANTIATE and not seen:
            seen.append(method)
            asyncio.run_coroutine_threadsafe(listed.wait(), loop).result()

    tenant.nebula.hook = wait
    launch = asyncio.create_task(launch_one(cloud))
    while not seen:  # noqa: ASYNC110 - a thread of the server fills it
        await asyncio.sleep(0.01)
    assert [(each.worker, each.state) for each in await cloud.machines()] == [(W, MachineState.STARTING)]
    assert [each.state for each in tenant.living()] == [HOLD]
    listed.set()
    assert running(tenant) == [] != [await launch] == running(tenant)


@pytest.mark.parametrize("fault", [HttpFault.LOST, HttpFault.REFUSED, HttpFault.HANG_AFTER])
async def test_a_release_is_got_through(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, fault: HttpFault
) -> None:
    proxy.add(fault, call="one.vm.action", times=1)
    assert running(tenant) == [] != [await launched(cloud)] == running(tenant)


async def test_a_release_that_is_not_got_through_is_made_with_the_next_listing(
    tenant: Tenant, cloud: OpennebulaCloud
) -> None:
    tenant.nebula.hook = refuse("one.vm.action", (False, "[one.vm.action] Could not release VM", 0x0800))
    machine = await launched(cloud)
    assert tenant.nebula.machine(machine).state == HOLD
    tenant.nebula.hook = None
    await cloud.machines()
    assert running(tenant) == [machine]


async def test_a_release_that_the_quota_refuses_leaves_nothing(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    words = "[one.vm.action] User [2] : user [2] limit of 1 reached for RUNNING_VMS quota in VM."
    tenant.nebula.hook = refuse("one.vm.action", (False, words, 0x0800), times=1)
    error = await launch_one(cloud)
    assert isinstance(error, QuotaExceeded)
    assert error.scope == "machines"
    assert tenant.ids() == []


async def test_a_machine_on_hold_that_can_neither_run_nor_end_is_told_as_unknown(
    tenant: Tenant, cloud: OpennebulaCloud
) -> None:
    tenant.nebula.hook = refuse("one.vm.action", (False, "[one.vm.action] User [2] : Not authorized.", 0x0200))
    assert isinstance(await launch_one(cloud), CloudUnavailable)
    assert len(tenant.ids()) == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_worker_ever_has_two_machines_that_run_in_a_storm(tenant: Tenant, seed: int) -> None:
    spoilt: list[HttpFault | Answer] = [
        Answer(500),
        Answer(502),
        Answer(429),
        answered(False, "x", 0x2000),
        *UNSEEN[:3],
        HttpFault.REFUSED,
    ]
    workers = {WorkerId(f"grid-{number}") for number in range(16)}
    async with FaultProxy(tenant.address.removesuffix("/RPC2"), seed=seed, name=xmlrpc_method) as proxy:
        proxy.mix(0.2, spoilt)
        cloud = tenant.cloud(having(page=500), endpoint=proxy.url)
        while workers - {each.worker for each in await cloud.machines()}:
            await cloud.launch([asked(worker) for worker in workers])
        await cloud.machines()
        ran = [each.said("GRIDTIDE_WORKER") for each in tenant.nebula.machines.values() if each.ran]
        assert sorted(ran) == sorted(workers)
        while left := [each.id for each in await cloud.machines()]:
            await cloud.terminate(left)
        assert proxy.struck.total() > 0
        await cloud.close()
    assert tenant.ids() == []


# --- listing


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("one.vmpool.info", HttpFault.CUT),
        ("one.vmpool.info", HttpFault.TRUNCATED),
        ("one.vmpool.info", HttpFault.HANG),
        ("one.vmpool.infoset", HttpFault.TRUNCATED),
        ("one.vmpool.infoset", HttpFault.REFUSED),
    ],
)
async def test_a_listing_is_whole_or_an_error(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, fault: HttpFault, call: str
) -> None:
    for number in range(12):
        tenant.nebula.make(OURS, f"grid-{number}", [*TAGS[:1], ("GRIDTIDE_WORKER", f"grid-{number}")])
    proxy.add(fault, call=call, times=1)
    assert {each.worker for each in await cloud.machines()} == {f"grid-{number}" for number in range(12)}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("one.vmpool.info", HttpFault.REFUSED),
        ("one.vmpool.infoset", HttpFault.TRUNCATED),
        ("one.user.info", HttpFault.HANG),
    ],
)
async def test_a_listing_that_cannot_be_had_raises(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, call: str, fault: HttpFault
) -> None:
    tenant.nebula.make(OURS, W, [*TAGS])
    proxy.add(fault, call=call)
    with pytest.raises(CloudUnavailable):
        await cloud.machines()


@pytest.mark.parametrize("descending", [True, False])
async def test_a_machine_that_ends_between_two_pages_hides_no_other(
    tenant: Tenant, cloud: OpennebulaCloud, descending: bool
) -> None:
    tenant.nebula.descending = descending
    made = [tenant.nebula.make(OURS, f"x{number}", []) for number in range(14)]
    await cloud.machines()
    first = made[-1] if descending else made[0]

    def end(method: str, arguments: tuple[object, ...]) -> None:
        if method == "one.vmpool.info" and arguments[2] != 0:
            tenant.nebula.put(first, 6)

    tenant.nebula.hook = end
    assert {each.id for each in await cloud.machines()} == {str(each) for each in made if each != first}


async def test_one_that_is_made_between_two_pages_doubles_no_other(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    made = [tenant.nebula.make(OURS, f"x{number}", []) for number in range(14)]

    def make(method: str, arguments: tuple[object, ...]) -> None:
        if method == "one.vmpool.info" and arguments[2] == 4:
            tenant.nebula.make(OURS, "new", [])

    tenant.nebula.hook = make
    found = [each.id for each in await cloud.machines()]
    assert len(set(found)) == len(found)
    assert set(found) >= {str(each) for each in made}


async def test_whose_a_machine_is_is_asked_once(tenant: Tenant) -> None:
    cloud = tenant.cloud(having(page=100))
    for number in range(150):
        tenant.nebula.make(OURS, f"x{number}", [])
    assert len(await cloud.machines()) == 150
    assert tenant.nebula.calls["one.vmpool.infoset"] == 2, "a hundred in a call"
    await cloud.machines()
    await launched(cloud)
    await cloud.machines()
    assert tenant.nebula.calls["one.vmpool.infoset"] == 2
    await cloud.close()


async def test_a_listing_that_comes_to_nothing_spares_the_next_one_work(tenant: Tenant, proxy: FaultProxy) -> None:
    cloud = tenant.cloud(having(page=500), endpoint=proxy.url)
    for number in range(150):
        tenant.nebula.make(OURS, f"x{number}", [])

    def break_down(method: str, arguments: tuple[object, ...]) -> Given | None:
        if tenant.nebula.calls["one.vmpool.infoset"] < 2:
            return None
        return (False, "[one.vmpool.infoset] Wrong parameters", 0x1000)

    tenant.nebula.hook = break_down
    with pytest.raises(LaunchRejected):
        await cloud.machines()
    tenant.nebula.hook = None
    tenant.nebula.calls.clear()
    assert len(await cloud.machines()) == 150
    assert tenant.nebula.calls["one.vmpool.infoset"] == 1, "for the other fifty"
    await cloud.close()


async def test_a_set_that_comes_without_attributes_hides_no_owner(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    """As OpenNebula before 7.2 answers when two sets are asked for at once."""
    ours = tenant.nebula.make(OURS, W, [*TAGS])
    short = documents.machine(tenant.nebula.machine(ours), extended=False)
    tenant.nebula.hook = refuse("one.vmpool.infoset", (True, documents.pool("VM_POOL", [short]), 0))
    assert [each.worker for each in await cloud.machines()] == [W]
    assert [each.worker for each in await cloud.machines()] == [W], "and this is remembered"


async def test_a_machine_that_a_set_leaves_out_is_asked_for_alone(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    ours, theirs = tenant.nebula.make(OURS, W, [*TAGS]), int(await tenant.add_foreign())

    def hook(method: str, arguments: tuple[object, ...]) -> Given | None:
        if method == "one.vmpool.infoset":
            return (True, "<VM_POOL></VM_POOL>", 0)
        if method == "one.vm.info" and arguments[1] == theirs:
            return (False, "[one.vm.info] User [2] : Not authorized to perform USE VM.", 0x0200)
        return None

    tenant.nebula.hook = hook
    assert {each.id: each.worker for each in await cloud.machines()} == {str(ours): W, str(theirs): None}


# --- ending


@pytest.mark.parametrize("fault", [HttpFault.LOST, HttpFault.TRUNCATED, HttpFault.REFUSED])
async def test_a_terminate_is_got_through(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud, fault: HttpFault
) -> None:
    machine = await launched(cloud)
    proxy.add(fault, call="one.vm.action", times=1)
    assert await cloud.terminate([machine]) == {machine: None}
    assert tenant.ids() == []


async def test_an_end_whose_answer_is_lost_is_no_error_while_it_takes_its_time(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud
) -> None:
    machine = await launched(cloud)
    assert running(tenant) == [machine]
    tenant.nebula.pace = 60.0
    proxy.add(HttpFault.LOST, call="one.vm.action", times=1)
    assert await cloud.terminate([machine]) == {machine: None}
    assert [each.life_cycle for each in tenant.living()] == [EPILOG]


async def test_a_machine_that_is_ending_is_not_ended_again(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    machine = await launched(cloud)
    tenant.nebula.pace = 60.0
    tenant.nebula.put(machine, ACTIVE, EPILOG)
    orders = tenant.nebula.calls["one.vm.action"]
    assert await cloud.terminate([machine]) == {machine: None}
    assert tenant.nebula.calls["one.vm.action"] == orders


async def test_a_machine_that_cannot_be_ended_now_is_told_so_at_once(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    machine = await launched(cloud)
    tenant.nebula.put(machine, ACTIVE, PROLOG)
    orders = tenant.nebula.calls["one.vm.action"]
    error = (await cloud.terminate([machine]))[machine]
    assert isinstance(error, CloudUnavailable)
    assert "wrong state 3/1" in str(error)
    assert tenant.nebula.calls["one.vm.action"] == orders + 1


async def test_nothing_but_ours_is_ended(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    by_hand = MachineId(str(tenant.nebula.make(OURS, "by hand", [])))
    other_site = MachineId(str(tenant.nebula.make(OURS, W, [("GRIDTIDE_SITE", "milano/private"), *TAGS[1:]])))
    with_our_tag = await tenant.add_foreign()
    answers = await cloud.terminate([by_hand, other_site, with_our_tag])
    assert {type(error) for error in answers.values()} == {LaunchRejected}
    assert tenant.nebula.calls["one.vm.action"] == 0
    assert len(tenant.ids()) == 3


@pytest.mark.usefixtures("impatient")
async def test_a_terminate_without_an_answer_is_an_error_for_that_machine(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud
) -> None:
    machine = await launched(cloud)
    proxy.add(HttpFault.ANSWER, call="one.vm.info", answer=Answer(502))
    answers = await cloud.terminate([machine, MachineId("never")])
    assert isinstance(answers[machine], CloudUnavailable)
    assert answers[MachineId("never")] is None


# --- what surrounds calls


async def test_a_cloud_that_hangs_holds_up_no_other(tenant: Tenant, proxy: FaultProxy) -> None:
    proxy.add(HttpFault.HANG)
    hanging = tenant.cloud(endpoint=proxy.url, timeout=5.0)
    calls = [asyncio.create_task(hanging.machines()) for _ in range(50)]
    await asyncio.sleep(0.1)
    healthy = tenant.cloud()
    async with asyncio.timeout(4.0):
        assert isinstance(await launch_one(healthy), str)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await hanging.close()
    await healthy.close()
    with pytest.raises(CloudUnavailable, match="closed"):
        await healthy.machines()


@pytest.mark.usefixtures("impatient")
async def test_a_redirect_takes_the_credentials_nowhere(
    tenant: Tenant, proxy: FaultProxy, cloud: OpennebulaCloud
) -> None:
    proxy.add(HttpFault.ANSWER, answer=Answer(307, b"", {"location": tenant.address}))
    with pytest.raises(CloudUnavailable):
        await cloud.machines()
    assert tenant.nebula.calls.total() == 0


async def test_credentials_that_were_renewed_in_their_file_are_used(tenant: Tenant, cloud: OpennebulaCloud) -> None:
    await cloud.machines()
    tenant.nebula.secrets["gridtide"] = (OURS, "renewed")
    with pytest.raises(AuthenticationFailed) as refused:
        await cloud.machines()
    assert "not-shown-anywhere" not in str(refused.value) + repr(refused.value)
    tenant.credentials("gridtide:renewed")
    assert await cloud.machines() == ()

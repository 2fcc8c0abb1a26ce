"""Calls, pages, volumes and quota, against a Nova and a Cinder that say what a script says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gridtide.clouds.flights import join
from gridtide.clouds.openstack_api import Access, OpenstackApi, Service
from gridtide.clouds.openstack_faults import Faults
from gridtide.clouds.openstack_machine import Json, machine, volumes
from gridtide.clouds.openstack_pages import pages
from gridtide.clouds.openstack_volumes import Volumes
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import CloudError, CloudUnavailable, LaunchRejected, Throttled
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId

TAG = "torino/private"
Reply = Json | Exception | Callable[[], Json]


class ScriptedApi(OpenstackApi):
    """Answers in the order of the script; the last answer is given again and again."""

    def __init__(self, *script: Reply) -> None:
        super().__init__("private", Access(), 2, Random(1))
        self.script = list(script)
        self.calls: list[str] = []

    def _do(self, service: Service, method: str, path: str, body: object, until: float) -> Json:
        self.calls.append(f"{method} {path}")
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(reply, Exception):
            raise reply
        return reply() if callable(reply) else reply


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., ScriptedApi]]:
    made: list[ScriptedApi] = []

    def api(*script: Reply) -> ScriptedApi:
        made.append(ScriptedApi(*script))
        return made[-1]

    yield api
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    monkeypatch.setattr("gridtide.clouds.repeating.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("gridtide.clouds.openstack_pages._BUILDING_PAUSE", 0.0)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def rows(*names: str, status: str = "ACTIVE", more: bool = False) -> dict[str, Any]:
    """A page; names that begin with b are being built."""
    servers = [{"id": name, "status": "BUILD" if name.startswith("b") else status} for name in names]
    return {"servers": servers, **({"servers_links": [{"rel": "next", "href": "elsewhere"}]} if more else {})}


async def listed(api: OpenstackApi, limit: int = 1000) -> list[str]:
    return [str(row["id"]) for row in await pages(api, "/servers/detail?", "servers", limit, soon())]


# --- calls


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_what_may_be_repeated_is(make: Callable[..., ScriptedApi], method: str) -> None:
    api = make(CloudUnavailable("no"), Throttled("slower"), {"done": True})
    assert await api.call(Service.COMPUTE, method, "/x", soon()) == {"done": True}
    assert len(api.calls) == 3


@pytest.mark.parametrize(
    ("asked", "section", "used"),
    [
        (None, "region_name: one", "one"),
        ("two", "region_name: one", "two"),
        ("two", "auth_type: password", "two"),
        ("two", "regions: [one, two]", "two"),
        (None, "regions: [one, two]", "one"),
    ],
)
def test_the_region_of_the_site_file_goes_before_that_of_clouds_yaml(
    tmp_path: Path, asked: str | None, section: str, used: str
) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_text(f"clouds: {{torino: {{auth: {{auth_url: 'http://127.0.0.1:1/v3'}}, {section}}}}}")
    api = OpenstackApi("private", Access("torino", file, region=asked), 1)
    assert api._connected().region_name == used
    api.close()


async def test_a_launch_is_repeated_only_when_it_was_throttled(make: Callable[..., ScriptedApi]) -> None:
    api = make(Throttled("slower"), CloudUnavailable("who knows"), {"done": True})
    with pytest.raises(CloudUnavailable, match="who knows"):
        await api.call(Service.COMPUTE, "POST", "/servers", soon())
    assert len(api.calls) == 2


async def test_a_refusal_is_not_repeated(make: Callable[..., ScriptedApi]) -> None:
    api = make(LaunchRejected("no"))
    with pytest.raises(LaunchRejected):
        await api.call(Service.COMPUTE, "GET", "/x", soon())
    assert len(api.calls) == 1


async def test_a_cloud_that_wants_to_be_left_alone_for_longer_than_there_is_time(
    make: Callable[..., ScriptedApi],
) -> None:
    api = make(Throttled("slower", retry_after=60.0))
    with pytest.raises(Throttled):
        await api.call(Service.COMPUTE, "POST", "/servers", soon())
    assert len(api.calls) == 1


async def test_a_call_that_hangs_ends_in_time(make: Callable[..., ScriptedApi]) -> None:
    hold = threading.Event()
    api = make(lambda: {"late": hold.wait(10.0)})
    with pytest.raises(CloudUnavailable, match="no answer in time"):
        await api.call(Service.COMPUTE, "GET", "/x", soon(0.1))
    hold.set()


async def test_a_closed_driver_makes_no_call(make: Callable[..., ScriptedApi]) -> None:
    api = make({})
    api.close()
    with pytest.raises(CloudUnavailable):
        await api.call(Service.COMPUTE, "POST", "/x", soon())
    assert api.calls == []


# --- pages


async def test_one_page_is_one_call(make: Callable[..., ScriptedApi]) -> None:
    for page in (rows(), rows("a1", "a2"), rows("a1", "b1")):
        api = make(page)
        assert len(await listed(api)) == len(page["servers"])
        assert len(api.calls) == 1


async def test_pages_go_on_from_the_last_row(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("a1", "a2", more=True), rows("a3"))
    assert await listed(api, 2) == ["a1", "a2", "a3"]
    assert [call.partition("?")[2] for call in api.calls] == ["limit=2", "limit=2&marker=a2"]


async def test_a_page_that_is_too_short_while_machines_are_built_is_not_the_last(
    make: Callable[..., ScriptedApi],
) -> None:
    """Nova found b1 twice and took one out: three rows were asked for, two came, and a2 is on no page yet."""
    api = make(rows("b1", "a1"), rows("a2"))
    assert await listed(api, 3) == ["b1", "a1", "a2"]


async def test_a_short_page_in_which_nothing_is_built_is_the_last(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("a1", "a2"))
    assert await listed(api, 3) == ["a1", "a2"]
    assert len(api.calls) == 1


async def test_pages_go_on_from_a_row_that_is_built(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("b1", "a1", "b2", more=True), rows("b2", "a2"))
    assert await listed(api, 3) == ["b1", "a1", "b2", "a2"]
    assert api.calls[1].endswith("marker=a1")


async def test_a_page_of_nothing_but_launches_makes_the_listing_begin_again(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("b1", "b2", more=True), rows("a1", "a2", more=True), rows("b3", "a9"), rows())
    assert await listed(api, 2) == ["a1", "a2", "b3", "a9"]
    assert "marker" not in api.calls[1]


async def test_launches_that_are_placed_between_two_pages_are_no_circle(make: Callable[..., ScriptedApi]) -> None:
    """The same two on two pages: they were placed in a cell, behind the launch that the second page went on from."""
    api = make(
        rows("a3", "b1", "b2", more=True),
        rows("b1", "b2", "b4", more=True),
        rows("a4", "a2", "a1", more=True),
        rows("a3"),
    )
    assert await listed(api, 3) == ["a4", "a2", "a1", "a3"]


async def test_a_project_in_which_all_machines_are_being_built_is_listed(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows(*(f"b{number}" for number in range(200))), rows())
    assert len(await listed(api)) == 200
    assert len(api.calls) == 2


async def test_pages_in_a_circle_are_an_error(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("a1", "a2", more=True))
    with pytest.raises(CloudUnavailable, match="circle"):
        await listed(api, 2)


@pytest.mark.parametrize("page", [{}, {"servers": None}, {"servers": [{}]}, {"servers": [1]}, {"servers": 5}])
async def test_a_page_that_makes_no_sense_is_an_error(make: Callable[..., ScriptedApi], page: Json) -> None:
    with pytest.raises(CloudUnavailable):
        await listed(make(page))


async def test_a_page_that_fails_is_no_short_listing(make: Callable[..., ScriptedApi]) -> None:
    api = make(rows("a1", "a2", more=True), LaunchRejected("marker [a2] not found"))
    with pytest.raises(LaunchRejected):
        await listed(api, 2)


# --- launches that overlap


def ask(worker: str) -> LaunchRequest:
    return LaunchRequest(WorkerId(worker), GroupName("grid"), ShapeName("tiny"), None, None, b"")


async def test_launches_of_one_worker_become_one() -> None:
    started: list[str] = []
    go = asyncio.Event()

    async def start(new: Any) -> dict[WorkerId, MachineId | CloudError]:
        started.extend(new)
        await go.wait()
        return {worker: MachineId(f"of {worker}") for worker in new}

    one, two = WorkerId("one"), WorkerId("two")
    first = asyncio.ensure_future(join("cloud", {one: ask(one)}, start))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(join("cloud", {one: ask(one), two: ask(two)}, start))
    other = asyncio.ensure_future(join("another cloud", {one: ask(one)}, start))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    go.set()
    assert await second == {one: "of one", two: "of two"}
    assert await other == {one: "of one"}
    assert started == [one, two, one]
    assert await join("cloud", {one: ask(one)}, start) == {one: "of one"}
    assert len(started) == 4, "what has ended is asked for anew"


async def test_a_launch_that_fails_in_an_unforeseen_way_is_unknown() -> None:
    async def start(_: Any) -> dict[WorkerId, MachineId | CloudError]:
        return {}

    one = WorkerId("one")
    assert type((await join("cloud", {one: ask(one)}, start))[one]) is CloudUnavailable


# --- faults


async def test_words_on_a_fault_are_asked_for_until_they_are_there(make: Callable[..., ScriptedApi]) -> None:
    api = make({"server": {}}, CloudUnavailable("no"), {"server": {"fault": {"message": "No valid host was found. "}}})
    faults = Faults(api)
    broken = machine({**server("m1"), "status": "ERROR"}, TAG)
    theirs = machine({**server("m2", ours=False), "status": "ERROR"}, TAG)
    (first, _) = await faults.explained((broken, theirs), {}, soon())
    assert "gives no reason" in first.message
    for _ in range(3):
        (again, other) = await faults.explained((broken, theirs), {}, soon())
        assert again.message == "No valid host was found."
        assert other == theirs
    assert api.calls == ["GET /servers/m1"] * 3, "twice, one of them repeated"


async def test_a_fault_that_nova_does_not_tell_is_asked_for_twice(make: Callable[..., ScriptedApi]) -> None:
    api = make({"server": {"fault": None}})
    faults = Faults(api)
    broken = machine({**server("m1"), "status": "ERROR"}, TAG)
    for _ in range(4):
        assert await faults.explained((broken,), {}, soon()) == (broken,)
    assert len(api.calls) == 2
    assert await faults.explained((broken,), {broken.id: "told"}, soon()) == (broken,)
    assert len(api.calls) == 2


# --- volumes


def server(name: str, *volumes: str, ours: bool = True) -> dict[str, Any]:
    return {
        "id": name,
        "status": "ACTIVE",
        "metadata": {"gridtide:site": TAG, "gridtide:worker": name} if ours else {},
        "flavor": {"vcpus": 1, "ram": 1, "disk": 0},
        "os-extended-volumes:volumes_attached": [{"id": each, "delete_on_termination": True} for each in volumes],
    }


async def look(known: Volumes, *servers: dict[str, Any]) -> None:
    found = tuple(machine(each, TAG) for each in servers)
    attached = {each.id: volumes(row) for each, row in zip(found, servers, strict=True)}
    await known.listed(found, attached, soon())


def cinder(*found: tuple[str, str]) -> Json:
    return {"volumes": [{"id": name, "status": status} for name, status in found]}


async def test_a_volume_that_outlives_its_machine_is_removed(make: Callable[..., ScriptedApi]) -> None:
    api = make(
        cinder(("v1", "deleting"), ("v2", "in-use"), ("v3", "available")),
        cinder(("v1", "error"), ("v3", "available")),
        {},
        cinder(("v3", "available")),
    )
    known = Volumes(api)
    await look(known, server("m1", "v1"), server("m2", "v2"), server("theirs", "v3", ours=False))
    known.ended(MachineId("m1"))
    known.ended(MachineId("theirs"))
    await look(known, server("m1", "v1"), server("m2", "v2"))
    assert api.calls == [], "it is still there"
    await look(known, server("m2", "v2"))
    assert len(api.calls) == 1, "Nova is deleting it"
    await look(known, server("m2", "v2"))
    assert api.calls[-1] == "DELETE /volumes/v1"
    await look(known, server("m2", "v2"))
    await look(known, server("m2", "v2"))
    assert len(api.calls) == 4, "looked once more, and done"


async def test_only_volumes_of_machines_that_we_ended_are_removed(make: Callable[..., ScriptedApi]) -> None:
    api = make(cinder(("v1", "available")))
    known = Volumes(api)
    await look(known, server("m1", "v1"))
    await look(known)
    assert api.calls == []


async def test_a_cinder_in_trouble_costs_no_listing(make: Callable[..., ScriptedApi]) -> None:
    api = make(LaunchRejected("no block-storage endpoint"))
    known = Volumes(api)
    await look(known, server("m1", "v1"))
    known.ended(MachineId("m1"))
    await look(known)
    await look(known)
    assert len(api.calls) == 2, "asked again with each listing"

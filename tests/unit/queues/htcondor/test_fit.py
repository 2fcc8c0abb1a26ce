"""Whether a machine would run a job, and why not. In the asking process: it has HTCondor's rule for names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.demand import Offer
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.resources import Resources, Shape
from gridtide.queues.htcondor.asking import Asker
from gridtide.queues.htcondor.counting import Group
from gridtide.queues.htcondor.fit import split
from gridtide.queues.htcondor.judging import Judge
from gridtide.queues.htcondor.planned import Planned
from gridtide.queues.htcondor.rows import rows, shown_requirements

USUAL = (
    '(TARGET.Arch == "X86_64") && (TARGET.OpSys == "LINUX") && (TARGET.Disk >= RequestDisk) && '
    "(TARGET.Memory >= RequestMemory) && (TARGET.HasFileTransfer)"
)
GROUP = GroupName("grid")


def job(requirements: str = "true", **more: str) -> dict[str, str]:
    """As condor_submit makes one."""
    size = {"RequestCpus": "1", "RequestMemory": "1000", "RequestDisk": "1024"}
    return {"Requirements": f"({requirements}) && {USUAL}", **size, **more}


def shape(cores: int = 2, memory: int = 4000) -> Shape:
    return Shape(ShapeName(f"{cores}core"), Resources(cores, memory, 10_000))


def offered(size: Shape | None = None, **attributes: str | int | float | bool) -> Offer:
    return Offer(GROUP, size or shape(), attributes)


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("condor") / "config"
    path.write_text("LOG = /tmp\n")
    return path


@pytest.fixture
async def judge(configuration: Path) -> AsyncIterator[Judge]:
    asker = Asker(configuration, "queue pool")
    yield Judge(asker)
    await asker.close()


async def row_of(judge: Judge, one: dict[str, str], *offers: Offer, planned: Planned | None = None) -> tuple[bool, str]:
    """Whether something runs it, and how it is called."""
    planned = planned or Planned({}, "True", url_transfers=False)
    (verdict,) = await judge.judge([one], [planned.ad(offer) for offer in offers], None, 30.0)
    (row,) = rows([(Group(one, 3, 50.0), verdict)], offers)
    assert (row.count, row.oldest_since) == (3, 50.0)
    return bool(row.runs_on), row.label


async def test_requirements_are_judged_against_the_planned_machine(judge: Judge) -> None:
    for requirements, attributes, runs in (
        ("true", {}, True),
        ('Colour == "green"', {"Colour": "green"}, True),
        ('Colour == "green"', {"Colour": "red"}, False),
        ("HasGhost =?= true", {}, False),
        ("Memory > 3000 && Cpus > 1", {}, True),
        ("Cpus > 2", {}, False),
        ("CpuFamily == 6", {}, True),  # every startd finds that out, and none has told yet
        ("CpuFamily == 6", {"CpuFamily": 5}, False),
        ('regexp("^Debian", OpSysAndVer)', {}, True),
        ('TARGET.Arch == "AARCH64"', {"Arch": "AARCH64"}, False),  # the usual clauses still ask for the other
        ('stringListMember("red", Colours)', {"Colours": "blue,red"}, True),
    ):
        found, label = await row_of(judge, job(requirements), offered(None, **attributes))
        assert found is runs, (requirements, attributes, label)


async def test_the_label_tells_what_is_missing(judge: Judge) -> None:
    _, label = await row_of(judge, job('HasGhost && Colour == "red"'), offered(Colour="red"))
    assert label == (
        '1 core, 1000 MiB memory, 1 MiB disk; Requirements: HasGhost && Colour == "red"; no worker would have HasGhost'
    )
    _, label = await row_of(judge, job(RequestMemory="8000"), offered(), offered(shape(4, 6000)))
    assert label.endswith("no shape has that: memory, at most 6000 MiB")
    _, label = await row_of(judge, job(RequestCpus="4"), offered(), offered(shape(3)))
    assert label.endswith("no shape has that: cores, at most 3")
    _, label = await row_of(judge, job(RequestGPUs="1"), offered())
    assert label.endswith("no shape has that: gpus, at most 0")
    both = job(RequestCpus="4", RequestMemory="5000")
    _, label = await row_of(judge, both, offered(shape(4, 2000)), offered(shape(2, 8000)))
    assert label.endswith("no worker would have Memory >= RequestMemory")


async def test_the_workers_own_conditions_count(judge: Judge) -> None:
    planned = Planned({}, "TARGET.RequestMemory < 500", url_transfers=False)
    runs, label = await row_of(judge, job(), offered(), planned=planned)
    assert not runs
    assert label.endswith("the worker's START: RequestMemory < 500")
    assert (await row_of(judge, job(RequestMemory="100"), offered(), planned=planned))[0]


async def test_what_a_machine_of_the_kind_said_is_believed_of_the_next(judge: Judge) -> None:
    planned = Planned({}, "True", url_transfers=False)
    planned.learn((GROUP, shape().name), 5.0, {"HasGhost": "true", "TotalSlotMemory": "900", "CpuFamily": "7"})
    assert (await row_of(judge, job("HasGhost", RequestMemory="100"), offered(), planned=planned))[0]
    runs, label = await row_of(judge, job(), offered(), planned=planned)
    assert not runs  # the shape promises 4000 MiB, its machines have 900
    assert "Memory >= RequestMemory" in label
    assert not (await row_of(judge, job("CpuFamily == 6", RequestMemory="1"), offered(), planned=planned))[0]
    planned.learn((GROUP, shape().name), 4.0, {})  # an older machine does not know better
    assert (await row_of(judge, job("HasGhost", RequestMemory="100"), offered(), planned=planned))[0]


async def test_requests_may_be_expressions(judge: Judge) -> None:
    one = job(RequestMemory="ifThenElse(MemoryUsage is undefined, 700, MemoryUsage)", RequestCpus="3 / 2")
    assert (await row_of(judge, one, offered()))[1].startswith("1 core, 700 MiB memory")
    nothing = {"Requirements": "true"}
    assert (await row_of(judge, nothing, offered())) == (True, "1 core")


async def test_the_parallel_universe_needs_more_than_a_worker(judge: Judge) -> None:
    runs, label = await row_of(judge, job(JobUniverse="11"), offered())
    assert not runs
    assert "dedicated scheduler" in label


async def test_without_offers_jobs_are_still_counted(judge: Judge) -> None:
    assert await row_of(judge, job()) == (False, "1 core, 1000 MiB memory, 1 MiB disk")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("((a))", ["a"]),
        ("(a) && (b && c)", ["a", "b", "c"]),
        ("a && b || c", ["a && b || c"]),
        ("(a || b) && c", ["a || b", "c"]),
        ("a && x ? b : c", ["a && x ? b : c"]),
        ("a =?= 1 && b", ["a =?= 1", "b"]),
        ('a == "x && (y" && b', ['a == "x && (y"', "b"]),
        (r'a == "\"" && b', [r'a == "\""', "b"]),
        ("f(a && b, c) && d", ["f(a && b, c)", "d"]),
        ("(a) && (b)", ["a", "b"]),
        ("(a) == (b)", ["(a) == (b)"]),
    ],
)
def test_a_conjunction_is_split_where_it_is_one(text: str, parts: list[str]) -> None:
    assert [part.strip() for part in split(text)] == parts


@given(st.text(alphabet='ab&|()"?:= \\', max_size=40))
def test_splitting_ends_and_loses_no_name(text: str) -> None:
    assert sum(part.count("a") for part in split(text)) == text.count("a")


def test_what_condor_submit_adds_is_not_shown() -> None:
    assert shown_requirements(job()["Requirements"]) == ""
    assert shown_requirements(job("A  >  1")["Requirements"]) == "A > 1"


@pytest.mark.parametrize("before", ["", "import htcondor2"], ids=["alone", "beside htcondor2"])
def test_what_requirements_ask_of_machines(before: str) -> None:
    ad = {"Requirements": "TARGET.Foo == Bar && Mine > 1 && MY.Other && my.Mine < 4", "Mine": "3"}
    code = f"{before}\nfrom gridtide.queues.htcondor.fit import machine_names\nprint(*machine_names({ad!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bar", "foo"]

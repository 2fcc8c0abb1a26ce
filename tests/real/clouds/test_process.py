"""The process cloud with real processes."""

# ruff: noqa: ASYNC240 - looking at a local file does not stall a test

import asyncio
import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gridtide import locks
from gridtide.clouds import process, process_table
from gridtide.clouds.local_home import PAST_KEPT
from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.protocol import Level
from gridtide.errors import AuthenticationFailed, CloudError, CloudUnavailable, LaunchRejected, NoCapacity
from gridtide.model.ids import CloudName, MachineId, WorkerId
from gridtide.model.machines import MachineState
from gridtide.model.resources import Resources
from tests.real.clouds.machines import (
    SHAPES,
    SITE,
    eventually,
    has_ended,
    kill_machine,
    listed,
    make_cloud,
    processes,
    request,
    settled,
)

W = MachineId("grid-1")
SECRET = b'{"worker": "grid-1", "join_token": "gtj_grid-1.hush-hush"}'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "machines"


@pytest.fixture
async def cloud(directory: Path) -> AsyncIterator[ProcessCloud]:
    made = make_cloud(directory)
    yield made
    directory.mkdir(exist_ok=True)
    await made.terminate([machine.id for machine in await made.machines() if machine.worker is not None])


@pytest.fixture
def bystander() -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts processes that look like a machine's and are none."""
    started = []

    def start(*arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", "import time; time.sleep(600)", *arguments]
        started.append(subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", **environment}))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.wait()


async def launch(cloud: ProcessCloud, *workers: str, user_data: bytes = b"{}") -> list[MachineId | CloudError]:
    answers = await cloud.launch([request(worker, user_data) for worker in workers])
    return [answers[WorkerId(worker)] for worker in workers]


# --- what a machine is


async def test_a_machine_gets_its_context_and_nothing_of_ours(
    directory: Path, cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "not-for-machines")
    assert await launch(cloud, "grid-1", user_data=SECRET) == [W]
    home = directory / "grid-1"
    (number,) = await settled("grid-1")
    environment = Path(f"/proc/{number}/environ").read_bytes()
    command = Path(f"/proc/{number}/cmdline").read_bytes()

    assert (home / "context.json").read_bytes() == SECRET
    assert (home / "context.json").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700
    assert b"hush" not in environment + command
    names = {line.partition(b"=")[0] for line in environment.split(b"\0") if line}
    assert names - {b"PWD"} == {b"PATH", b"HOME", b"TMPDIR", b"LANG", b"GRIDTIDE_MACHINE"}  # PWD is the shell's
    assert json.loads((home / "machine.json").read_text())["site"] == SITE


async def test_a_machine_is_tied_to_its_maker_by_nothing(directory: Path, cloud: ProcessCloud) -> None:
    await launch(cloud, "grid-1")
    (number,) = await settled("grid-1")
    assert os.getsid(number) == number
    kept = {"/dev/null", str(directory / "grid-1/console.log"), str(directory / "grid-1/machine.lock")}
    await eventually(lambda: open_files(number) == kept)  # a program that starts has its libraries open for a moment


def open_files(process: int) -> set[str]:
    found = set()
    for each in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(each))
    return found


async def test_by_default_a_machine_runs_the_agent(directory: Path) -> None:
    cloud = ProcessCloud(CloudName("local"), SITE, directory, SHAPES, python="/bin/echo")
    await launch(cloud, "grid-1", user_data=SECRET)
    console = directory / "grid-1" / "console.log"
    await eventually(lambda: bool(console.read_bytes()))
    assert console.read_text() == f"-I {process.AGENT} --context context.json\n"
    await cloud.terminate([W])


async def test_two_hundred_at_once_leave_the_loop_free(directory: Path, cloud: ProcessCloud) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    answers = await launch(cloud, *(f"grid-{number}" for number in range(200)))
    ticks_while_launching = ticks
    ticking.cancel()
    assert len({answer for answer in answers if isinstance(answer, str)}) == 200
    assert ticks_while_launching >= 5
    assert {machine.state for machine in await cloud.machines()} == {MachineState.RUNNING}


# --- how it is seen


async def test_a_process_that_ended_is_a_stopped_machine_with_its_last_words(directory: Path) -> None:
    cloud = make_cloud(directory, "echo one; printf 'no \\033[31mcontact\\n\\n'")
    await launch(cloud, "grid-1")
    await eventually(lambda: has_ended(directory / "grid-1"))
    found = (await listed(cloud))[W]
    assert (found.state, found.worker) == (MachineState.STOPPED, "grid-1")
    assert found.message.endswith("last words: no  [31mcontact")
    assert await launch(make_cloud(directory), "grid-1") == [W]
    assert not processes("grid-1"), "what has ended is not started a second time"


async def test_a_machine_whose_agent_left_processes_behind_is_broken(directory: Path) -> None:
    program = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    cloud = make_cloud(directory, f'exec {sys.executable} -Ic "{program}"')
    await launch(cloud, "grid-1")
    await eventually(lambda: len(processes("grid-1")) == 1 and has_ended(directory / "grid-1"))
    found = (await listed(cloud))[W]
    assert found.state is MachineState.BROKEN
    assert "1 of its processes run on" in found.message
    assert await cloud.terminate([W]) == {W: None}
    assert not processes("grid-1")


async def test_a_process_lives_on_when_its_children_inherit_nothing(directory: Path) -> None:
    """The lock is the first process's alone: jobs that close their files do not prolong or end it."""
    cloud = make_cloud(directory, f'exec {sys.executable} -Ic \'import subprocess; subprocess.run(["sleep", "600"])\'')
    await launch(cloud, "grid-1")
    await eventually(lambda: len(processes("grid-1")) == 2)
    assert (await listed(cloud))[W].state is MachineState.RUNNING
    await cloud.terminate([W])
    assert not processes("grid-1")


async def test_directories_that_are_no_machines_are_not_listed(directory: Path, cloud: ProcessCloud) -> None:
    (directory / "notes").mkdir(parents=True)
    (directory / "a-file").write_text("hello")
    (directory / "link").symlink_to("notes")
    assert await cloud.machines() == ()
    for name in ("notes", "a-file", "link"):
        assert await cloud.terminate([MachineId(name)]) == {MachineId(name): None}
        (answer,) = await launch(cloud, name)
        assert isinstance(answer, LaunchRejected | CloudError)
        assert os.path.lexists(directory / name)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"site": "torino"}', '{"site":"torino","worker":"w","resources":{"x":1}}']
)
async def test_a_machine_with_an_unreadable_tag_is_unknown_and_left_alone(
    directory: Path, cloud: ProcessCloud, content: str
) -> None:
    (directory / "grid-1").mkdir(parents=True)
    (directory / "grid-1" / "machine.json").write_text(content)
    found = (await listed(cloud))[W]
    assert (found.state, found.worker, found.resources) == (MachineState.UNKNOWN, None, Resources())
    assert isinstance((await cloud.terminate([W]))[W], AuthenticationFailed)
    assert isinstance((await launch(cloud, "grid-1"))[0], LaunchRejected)
    assert (directory / "grid-1" / "machine.json").read_text() == content


async def test_without_its_lock_a_machine_is_unknown_but_can_be_ended(directory: Path, cloud: ProcessCloud) -> None:
    await launch(cloud, "grid-1")
    (directory / "grid-1" / "machine.lock").unlink()
    assert (await listed(cloud))[W].state is MachineState.UNKNOWN
    assert await launch(cloud, "grid-1") == [W]
    (directory / "grid-1" / "started").rename(directory / "grid-1" / "prepared")
    assert isinstance((await launch(cloud, "grid-1"))[0], CloudUnavailable), "no lock, no start"
    await settled("grid-1")
    assert await cloud.terminate([W]) == {W: None}
    assert not processes("grid-1")


async def test_a_missing_directory_is_empty_only_when_nothing_runs(directory: Path, cloud: ProcessCloud) -> None:
    assert await cloud.machines() == ()
    await launch(cloud, "grid-1")
    await settled("grid-1")
    away = directory.with_name("away")
    directory.rename(away)
    with pytest.raises(CloudUnavailable, match="still run"):
        await cloud.machines()
    away.rename(directory)
    assert list(await listed(cloud)) == [W]


async def test_looking_at_a_machine_does_not_make_it_look_alive(directory: Path) -> None:
    cloud = make_cloud(directory, "true")
    await launch(cloud, "grid-1")
    await eventually(lambda: has_ended(directory / "grid-1"))
    looks = await asyncio.gather(*(make_cloud(directory).machines() for _ in range(8)))
    assert {machine.state for look in looks for machine in look} == {MachineState.STOPPED}


# --- how it ends


async def test_the_end_of_a_machine_is_the_end_of_all_its_processes(directory: Path) -> None:
    cloud = make_cloud(directory, "(setsid sleep 600 &) ; (trap '' TERM HUP; sleep 600) & sleep 600 & wait")
    await launch(cloud, "grid-1", "grid-2")
    await eventually(lambda: len(processes("grid-1")) >= 4 and len(processes("grid-2")) >= 4)
    assert await cloud.terminate([W]) == {W: None}
    assert not processes("grid-1")
    assert len(processes("grid-2")) >= 4
    assert list(await listed(cloud)) == ["grid-2"]
    await cloud.terminate([MachineId("grid-2")])


async def test_a_machine_that_breeds_processes_is_ended_too(directory: Path) -> None:
    cloud = make_cloud(directory, "while :; do setsid sleep 2 & sleep 0.002; done")
    await launch(cloud, "grid-1")
    await eventually(lambda: len(processes("grid-1")) > 10)
    assert await cloud.terminate([W]) == {W: None}
    assert not processes("grid-1")


async def test_who_only_looks_like_a_machine_is_left_alone(
    cloud: ProcessCloud, bystander: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    marker = f"{SITE}/grid-1"
    others = [
        bystander(GRIDTIDE_MACHINE=f"{SITE}/grid-11"),
        bystander(GRIDTIDE_MACHINE=f"{SITE}/grid-"),
        bystander(GRIDTIDE_MACHINE="milano/grid-1"),
        bystander(GRIDTIDE_MACHINE=f" {marker}"),
        bystander(MY_GRIDTIDE_MACHINE=marker),
        bystander(NOTE=f"GRIDTIDE_MACHINE={marker}"),
        bystander(f"GRIDTIDE_MACHINE={marker}", "agent.py", "--context", "context.json"),
    ]
    await launch(cloud, "grid-1")
    await settled("grid-1")
    assert await cloud.terminate([W]) == {W: None}
    assert await cloud.terminate([W, MachineId("grid-never")]) == {W: None, "grid-never": None}
    assert [each.poll() for each in others] == [None] * len(others)


async def test_another_sites_machine_is_refused(directory: Path, cloud: ProcessCloud) -> None:
    neighbour = make_cloud(directory, site="neighbour")
    await launch(neighbour, "grid-1")
    assert isinstance((await cloud.terminate([W]))[W], AuthenticationFailed)
    assert isinstance((await launch(cloud, "grid-1"))[0], LaunchRejected)
    found = (await listed(cloud))[W]
    assert (found.worker, found.state, found.resources) == (None, MachineState.RUNNING, SHAPES[0].resources)
    assert await neighbour.terminate([W]) == {W: None}


async def test_processes_without_a_directory_are_ended_as_well(directory: Path, cloud: ProcessCloud) -> None:
    await launch(cloud, "grid-1")
    (directory / "grid-1").rename(directory.with_name("stolen"))
    assert await cloud.terminate([W]) == {W: None}
    assert not processes("grid-1")


async def test_what_was_being_removed_is_listed_and_finished(directory: Path, cloud: ProcessCloud) -> None:
    halfway = directory / ".ending" / f"{SITE}.grid-1.00ff00ff"
    (halfway / "home" / "jobs").mkdir(parents=True)
    other = directory / ".ending" / f"{SITE}.two.grid-1.00ff00ff"
    other.mkdir()
    found = await listed(cloud)
    assert {(machine.worker, machine.state) for machine in found.values()} == {("grid-1", MachineState.ENDING)}
    assert isinstance((await launch(cloud, "grid-1"))[0], LaunchRejected)
    assert await cloud.terminate([W]) == {W: None}
    assert not halfway.exists()
    assert other.exists(), "another site's, though its name ends alike"
    assert await cloud.machines() == ()


async def test_a_directory_without_rights_and_with_links_out_is_removed(directory: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("600 pages")
    script = f"mkdir -p a/b; touch a/b/c; ln -s {precious} a/link; chmod 000 a/b a; touch ready; exec sleep 600"
    cloud = make_cloud(directory, script)
    await launch(cloud, "grid-1")
    await eventually(lambda: (directory / "grid-1" / "ready").exists())
    assert await cloud.terminate([W]) == {W: None}
    assert list((directory / ".ending").iterdir()) == []
    assert (precious / "thesis").read_text() == "600 pages"


async def test_the_consoles_of_the_last_ones_are_kept(directory: Path, cloud: ProcessCloud) -> None:
    names = [f"grid-{number}" for number in range(PAST_KEPT + 5)]
    await launch(cloud, *names)
    await eventually(lambda: all((directory / name / "console.log").stat().st_size for name in names))
    await cloud.terminate([MachineId(name) for name in names])
    kept = list((directory / ".past").iterdir())
    assert len(kept) == PAST_KEPT
    assert {file.read_text() for file in kept} == {"hello\n"}
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}


# --- crashes and failures


class Crash(BaseException):
    """The controller is killed here."""


async def test_a_crash_before_the_start_leaves_a_broken_machine_that_a_repeat_starts(
    directory: Path, cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", crash)
        with pytest.raises(Crash):
            await launch(cloud, "grid-1", user_data=b"old")
    found = (await listed(make_cloud(directory)))[W]
    assert (found.worker, found.state) == ("grid-1", MachineState.BROKEN)
    assert "never started" in found.message

    again = make_cloud(directory)
    assert await launch(again, "grid-1", user_data=SECRET) == [W]
    assert (directory / "grid-1" / "context.json").read_bytes() == SECRET, "the newest join token is the valid one"
    assert (await listed(again))[W].state is MachineState.RUNNING
    assert await launch(cloud, "grid-1", user_data=b"later") == [W]
    await settled("grid-1")
    assert (directory / "grid-1" / "context.json").read_bytes() == SECRET, "a running machine keeps its context"


async def test_half_made_machines_are_swept_with_their_secrets(
    directory: Path, cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> bool:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(locks, "take_lock", crash)
        with pytest.raises(Crash):
            await launch(cloud, "grid-1", user_data=SECRET)
    assert (directory / ".making" / "grid-1" / "context.json").exists()
    assert await cloud.machines() == ()
    await launch(cloud, "grid-2")
    assert list((directory / ".making").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoCapacity),
        (errno.EDQUOT, NoCapacity),
        (errno.EAGAIN, NoCapacity),
        (errno.EMFILE, NoCapacity),
        (errno.ENOMEM, NoCapacity),
        (errno.EACCES, AuthenticationFailed),
        (errno.EROFS, AuthenticationFailed),
        (errno.EIO, CloudUnavailable),
    ],
)
async def test_failures_have_kinds_and_leave_nothing(
    directory: Path, cloud: ProcessCloud, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[CloudError]
) -> None:
    real = subprocess.Popen

    def fail(*arguments: object, **options: object) -> object:
        if str(options["cwd"]).endswith("grid-1"):
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", fail)
    answers = await launch(cloud, "grid-1", "grid-2", user_data=SECRET)
    assert type(answers[0]) is kind
    assert answers[1] == "grid-2", "the next one is tried all the same"
    assert answers[0].remedy
    assert "hush" not in str(answers[0])
    assert not (directory / "grid-1").exists()
    assert list((directory / ".making").iterdir()) == []
    assert list(await listed(cloud)) == ["grid-2"]


async def test_a_program_that_does_not_exist_is_a_request_that_makes_no_sense(directory: Path) -> None:
    cloud = ProcessCloud(CloudName("local"), SITE, directory, SHAPES, python="/no/such/python")
    (answer,) = await launch(cloud, "grid-1")
    assert isinstance(answer, LaunchRejected)
    assert "/no/such/python" in str(answer)
    assert await cloud.machines() == ()


async def test_a_directory_that_is_a_file_is_a_typed_error_everywhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cloud = make_cloud(tmp_path / "file")
    with pytest.raises(CloudError):
        await cloud.machines()
    with pytest.raises(CloudError):
        await launch(cloud, "grid-1")
    with pytest.raises(CloudError):
        await cloud.terminate([W])
    assert (await cloud.check([]))[0].level is Level.ERROR


@pytest.mark.parametrize("worker", ["", ".", "..", "../x", "a/b", "A", ".making", "a" * 64, "a\n"])
async def test_names_that_could_lead_elsewhere_are_rejected(directory: Path, cloud: ProcessCloud, worker: str) -> None:
    (answer,) = await launch(cloud, worker)
    assert isinstance(answer, LaunchRejected)
    assert await cloud.terminate([MachineId(worker)]) == {MachineId(worker): None}


@pytest.mark.parametrize("site", ["", "a/b", "..", "a=b\0c", "a b"])
def test_a_site_name_must_be_a_file_name(directory: Path, site: str) -> None:
    with pytest.raises(ValueError, match="site name"):
        make_cloud(directory, site=site)


async def test_check(directory: Path) -> None:
    cloud = ProcessCloud(CloudName("local"), SITE, directory, SHAPES)
    findings = {finding.subject: finding for finding in await cloud.check(["worker-2026"])}
    assert {subject: finding.level for subject, finding in findings.items() if subject != "disk"} == {
        "directory": Level.OK,
        "python": Level.OK,
        "kernel": Level.OK,
        "agent": Level.OK,
        "root": Level.OK,
        "image worker-2026": Level.ERROR,
    }
    assert not directory.exists(), "check changes nothing"
    broken = ProcessCloud(CloudName("local"), SITE, directory, SHAPES, python="/bin/false")
    assert {f.subject for f in await broken.check([]) if f.level is Level.ERROR} == {"python"}


async def test_a_signal_meant_for_one_that_is_gone_reaches_nobody(
    cloud: ProcessCloud, bystander: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    """The number that was found belongs to another process by the time of the kill."""
    other = bystander()
    process_table.kill({f"{SITE}/grid-1": [other.pid, 2**22 - 1]})
    assert other.poll() is None


async def test_machines_stop_when_their_process_is_killed(directory: Path, cloud: ProcessCloud) -> None:
    await launch(cloud, "grid-1")
    await kill_machine(directory / "grid-1")
    assert (await listed(cloud))[W].state is MachineState.STOPPED

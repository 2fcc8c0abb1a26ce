"""Machines of the process cloud that have an image: a root, processes and a name of their own, and nothing is left."""

# ruff: noqa: ASYNC240 - looking at a local file does not stall a test

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.protocol import Level
from gridtide.clouds.qemu import QemuCloud
from gridtide.errors import Conflict, ImageNotFound, LaunchRejected
from gridtide.images.contents import content_list
from gridtide.images.store import ImageStore, Made, MadeDisk
from gridtide.model.contexts import ContextFormat
from gridtide.model.ids import CloudName, MachineId, WorkerId
from gridtide.model.machines import MachineState
from tests.real.clouds.machines import (
    SHAPES,
    SITE,
    TREE,
    eventually,
    first_of,
    has_ended,
    inside,
    listed,
    make_tree_cloud,
    processes,
    request,
)
from tests.real.engines import need
from tests.real.images import QEMU, tree_store

W = WorkerId("grid-1")
M = MachineId("grid-1")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "machines"


@pytest.fixture
async def sleeper(directory: Path) -> AsyncIterator[ProcessCloud]:
    """A cloud with one machine that sleeps."""
    cloud = make_tree_cloud(directory)
    try:
        assert await cloud.launch([request("grid-1", image=TREE)]) == {W: M}
        await eventually(lambda: inside("grid-1") == ["sleep"])
        yield cloud
    finally:
        await cloud.terminate([machine.id for machine in await cloud.machines()])


async def told_by(directory: Path, script: str, user_data: bytes = b"{}") -> str:
    """What a machine prints that runs a script in the image, and ends."""
    cloud = make_tree_cloud(directory, script)
    answers = await cloud.launch([request("grid-1", user_data, TREE)])
    assert answers == {W: M}, answers
    await eventually(lambda: has_ended(directory / "grid-1"))
    text = (directory / "grid-1/console.log").read_text()
    await cloud.terminate([M])
    return text


def mounts_of_host() -> str:
    return Path("/proc/self/mountinfo").read_text()


def overlays_of(directory: Path) -> list[str]:
    """Processes in whose mount name space an overlay of this cloud is mounted, wherever that is."""
    found = []
    for place in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            told = place.read_text()
        except OSError:
            continue
        if str(directory) in told:
            found.append(place.parent.name)
    return found


# --- isolation


async def test_a_machine_has_a_root_processes_and_a_name_of_its_own(directory: Path) -> None:
    script = (
        """
hostname; cat /etc/hostname; getent hosts grid-1; echo "pid $$"; ls /proc | grep -c '^[0-9]'; ls -A /home /mnt
cat /etc/os-release | grep VERSION_CODENAME; id -u; ipcs -q | grep -c 0x; pwd; umask
cat /proc/1/cmdline | tr '\\0' ' ' | cut -d' ' -f2 ; echo
test -e """
        + str(directory)
        + """ || echo unseen
for file in /etc/mine /tmp/mine /run/mine /dev/shm/mine; do echo x > $file || echo "no $file"; done
echo x > /proc/sys/vm/swappiness || echo fixed
mkdir /sys/fs/x 2>/dev/null || echo fixed
head -c 4 /dev/urandom | wc -c; test -c /dev/null && echo null; ls -d /dev/pts/ptmx; stat -c %a /tmp /
"""
    )
    before = Path("/proc/sys/vm/swappiness").read_text()
    told = await told_by(directory, script)
    lines = told.split("\n")
    assert lines[:4] == ["grid-1", "grid-1", "127.0.1.1       grid-1", lines[3]]
    assert int(lines[3].removeprefix("pid ")) < 100, "numbers start anew"
    assert int(lines[4]) <= 6, "of the host's processes none is seen"
    assert "trixie" in told
    assert "unseen" in told
    assert "no /" not in told
    assert told.count("fixed") == 2
    assert lines[-6:] == ["4", "null", "/dev/pts/ptmx", "1777", "755", ""]
    assert Path("/proc/sys/vm/swappiness").read_text() == before
    assert not Path("/etc/mine").exists()


async def test_what_a_machine_writes_is_its_own(directory: Path) -> None:
    script = "test -e /etc/mine && echo found; echo x > /etc/mine; rm /etc/debian_version; ls /etc/debian_version"
    first, second = await told_by(directory, script), await told_by(directory, script)
    assert first == second
    assert "found" not in first
    assert (tree_store(TREE).directory / TREE / "tree/etc/debian_version").exists()
    tree_store(TREE).verify(TREE)


async def test_hosts_and_resolver_are_the_hosts(directory: Path) -> None:
    told = await told_by(directory, "cat /etc/hosts; echo ---; cat /etc/resolv.conf")
    hosts, _, resolver = told.partition("---\n")
    assert hosts == Path("/etc/hosts").read_text().rstrip() + "\n127.0.1.1 grid-1\n"
    assert resolver == Path("/etc/resolv.conf").read_text()


@pytest.mark.parametrize(("privileged", "user"), [(False, "988"), (True, "0")])
async def test_the_agent_runs_as_the_user_that_it_needs(directory: Path, privileged: bool, user: str) -> None:
    context = {
        "version": 1,
        "worker": "grid-1",
        "service": ["http://127.0.0.1:9"],
        "join_token": "gtj_hush",
        "files": [{"path": "/etc/told", "content": "by the context", "mode": "0640"}],
        "scripts": [{"name": "x", "content": "#!/bin/sh\nid -u; cat /etc/told; echo; stat -c %a /etc/told"}],
        **({"privileged": True} if privileged else {}),
    }
    cloud = make_tree_cloud(directory, None)
    await cloud.launch([request("grid-1", json.dumps(context).encode(), TREE)])
    console = directory / "grid-1/console.log"
    try:
        await eventually(lambda: "again in" in console.read_text())
        assert console.read_text().split("\n")[:3] == ["0", "by the context", "640"]
        agents = [number for number in processes("grid-1") if number != first_of("grid-1")]
        owners = {Path(f"/proc/{number}/status").read_text().partition("Uid:")[2].split()[0] for number in agents}
        assert owners == {user}
        command_lines = b"".join(Path(f"/proc/{number}/cmdline").read_bytes() for number in processes("grid-1"))
        environments = b"".join(Path(f"/proc/{number}/environ").read_bytes() for number in processes("grid-1"))
        assert b"hush" not in command_lines + environments
        held = json.loads((directory / "grid-1/upper/var/lib/gridtide/context.json").read_text())
        assert "scripts" not in held
        assert held["join_token"] == "gtj_hush"
    finally:
        await cloud.terminate([M])


async def test_a_script_as_user_data_is_run_as_root(directory: Path) -> None:
    cloud = make_tree_cloud(directory, None)
    await cloud.launch([request("grid-1", b"#!/bin/sh\nid -u; hostname; exit 1\n", TREE)])
    await eventually(lambda: has_ended(directory / "grid-1"))
    assert (directory / "grid-1/console.log").read_text() == "0\ngrid-1\n"
    await cloud.terminate([M])


# --- process 1


async def test_orphans_are_buried(directory: Path) -> None:
    script = "(sleep 0.1 & sleep 0.2 &) ; sleep 0.5; ps -A -o stat= | grep -c Z; true"
    assert await told_by(directory, script) == "0\n"


async def test_a_signal_is_handed_on(sleeper: ProcessCloud, directory: Path) -> None:
    os.kill(first_of("grid-1"), signal.SIGTERM)
    await eventually(lambda: has_ended(directory / "grid-1"))
    assert (await listed(sleeper))[M].state is MachineState.STOPPED
    assert processes("grid-1") == []


async def test_an_agent_that_is_killed_is_started_again(sleeper: ProcessCloud, directory: Path) -> None:
    (agent,) = [number for number in processes("grid-1") if number != first_of("grid-1")]
    os.kill(agent, signal.SIGKILL)
    starts = directory / "grid-1/upper/var/lib/gridtide/starts"
    await eventually(lambda: len(starts.read_text().split()) == 2)
    assert "the agent ended with status 137; it is started again" in (directory / "grid-1/console.log").read_text()
    assert (await listed(sleeper))[M].state is MachineState.RUNNING


# --- nothing is left


async def test_nothing_is_left_of_a_machine(directory: Path) -> None:
    mounts = mounts_of_host()
    # Daemons that forget whose they are: another session, another user, no environment, no open file.
    hide = "setsid setpriv --reuid=988 --clear-groups env -i sleep 600 <&- >&- 2>&- &"
    cloud = make_tree_cloud(directory, hide + " mkdir -p /etc/deep/er; chmod 0 /etc/deep; exec sleep 601")
    await cloud.launch([request("grid-1", image=TREE)])
    await eventually(lambda: inside("grid-1") == ["sleep"])
    first = first_of("grid-1")
    space = os.readlink(f"/proc/{first}/ns/pid")
    members = [place.parent.parent.name for place in Path("/proc").glob("[0-9]*/ns/pid") if reads(place) == space]
    assert len(members) == 3, "process 1, the one that is known and the one that hides"
    assert mounts_of_host() == mounts, "the host sees no mount, not even now"
    assert await cloud.terminate([M]) == {M: None}
    assert not [number for number in members if Path(f"/proc/{number}").exists()]
    await eventually(lambda: overlays_of(directory) == [], 2.0)
    assert mounts_of_host() == mounts
    assert sorted(path.name for path in directory.iterdir()) == [".ending", ".making", ".making.lock", ".past"]
    assert list((directory / ".ending").iterdir()) == []


def reads(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


async def test_a_first_process_that_is_killed_takes_all_with_it(sleeper: ProcessCloud, directory: Path) -> None:
    everything = processes("grid-1")
    os.kill(first_of("grid-1"), signal.SIGKILL)
    await eventually(lambda: has_ended(directory / "grid-1"))
    assert not [number for number in everything if Path(f"/proc/{number}").exists()]
    assert (await listed(sleeper))[M].state is MachineState.STOPPED
    await eventually(lambda: overlays_of(directory) == [], 2.0)
    assert await sleeper.terminate([M]) == {M: None}
    assert not (directory / "grid-1").exists()


async def test_the_process_that_waits_outside_may_be_killed_too(sleeper: ProcessCloud, directory: Path) -> None:
    outside = int(Path(f"/proc/{first_of('grid-1')}/status").read_text().partition("PPid:")[2].split()[0])
    os.kill(outside, signal.SIGKILL)
    await eventually(lambda: has_ended(directory / "grid-1"))
    await eventually(lambda: processes("grid-1") == [])
    assert (await listed(sleeper))[M].state is MachineState.STOPPED


async def test_a_machine_outlives_its_controller_and_is_found_again(directory: Path) -> None:
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from tests.real.clouds.machines import make_tree_cloud, request, TREE\n"
        "cloud = make_tree_cloud(Path(sys.argv[1]))\n"
        "asyncio.run(cloud.launch([request('grid-1', image=TREE)]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "GRIDTIDE_TEST_SITE": SITE}
    repository = Path(__file__).parents[3]
    command = [sys.executable, "-c", program, str(directory)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=repository, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    heir = make_tree_cloud(directory)
    assert {machine.worker for machine in await heir.machines()} == {W}
    assert await heir.launch([request("grid-1", image=TREE)]) == {W: M}
    await eventually(lambda: inside("grid-1") == ["sleep"])
    assert len((directory / "grid-1/upper/var/lib/gridtide/starts").read_text().split()) == 1
    assert await heir.terminate([M]) == {M: None}
    assert processes("grid-1") == []


# --- images


async def test_an_image_is_in_use_as_long_as_a_machine_is(tmp_path: Path, directory: Path) -> None:
    mine = ImageStore(tmp_path / "images")
    borrow(mine)
    cloud = ProcessCloud(
        CloudName("local"), SITE, directory, SHAPES, command=("/bin/sh", "-c", "exec sleep 600"), images=mine
    )
    await cloud.launch([request("grid-1", image=TREE), request("grid-2", image=TREE)])
    assert mine.users(TREE)
    with pytest.raises(Conflict, match="a machine runs from image batch-tree"):
        mine.remove(TREE)
    (mine.directory / TREE).unlink()
    assert mine.prune() == []
    await cloud.terminate([M])
    assert mine.prune() == [], "another machine has it"
    await cloud.terminate([MachineId("grid-2")])
    assert len(mine.prune()) == 1


def borrow(store: ImageStore) -> None:
    """A tree with nothing but BusyBox and what it takes to run a shell."""
    source = tree_store(TREE).directory / TREE / "tree"
    with store.making() as place:
        for name in ("usr/bin", "bin", "etc", "lib64", "usr/lib"):
            (place / "tree" / name).mkdir(parents=True)
        (place / "tree/usr/bin/busybox").write_bytes((source / "usr/bin/busybox").read_bytes())
        (place / "tree/usr/bin/busybox").chmod(0o755)
        for name in ("bin/sh", "usr/bin/sleep"):
            (place / "tree" / name).symlink_to("/usr/bin/busybox")
        (place / "contents.txt").write_text(content_list(place / "tree"))
        store.add(TREE, place, Made(None, ContextFormat.AGENT, 1, 0.0, "a test", {}))


async def test_what_cannot_be_is_said(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(tmp_path / "images")
    with store.making() as place:
        (place / "disk.qcow2").write_bytes(b"disk")
        store.add("thin", place, Made(MadeDisk(1, None), ContextFormat.AGENT, 1, 0.0, "a test", {}))
    cloud = ProcessCloud(CloudName("local"), SITE, directory, SHAPES, images=store)
    answers = await cloud.launch([request("grid-1", image="thin"), request("grid-2", image="none")])
    assert isinstance(answers[W], LaunchRejected)
    assert "image thin is a disk: a process has a tree (build one with --tree" in str(answers[W])
    assert isinstance(answers[WorkerId("grid-2")], ImageNotFound)
    findings = {each.subject: each.level for each in await cloud.check(["thin", "none"])}
    assert (findings["root"], findings["image thin"], findings["image none"]) == (Level.OK, Level.ERROR, Level.ERROR)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = (await make_tree_cloud(directory).launch([request("grid-3", image=TREE)]))[WorkerId("grid-3")]
    assert "needs root, and this is user 1000 (run the controller as root" in str(refused)
    assert await cloud.machines() == ()


async def test_a_virtual_machine_refuses_a_tree(directory: Path) -> None:
    need(QEMU)
    cloud = QemuCloud(CloudName("local"), SITE, directory, SHAPES, tree_store(TREE))
    refused = (await cloud.launch([request("grid-1", image=TREE)]))[W]
    assert isinstance(refused, LaunchRejected)
    assert "image batch-tree is a tree: a virtual machine boots a disk (build it without --tree" in str(refused)
    findings = {each.subject: each.level for each in await cloud.check([TREE])}
    assert findings["image batch-tree"] is Level.ERROR
    assert await cloud.machines() == ()


async def test_an_image_without_a_python_is_refused_before_a_machine_is_made(tmp_path: Path, directory: Path) -> None:
    store = ImageStore(tmp_path / "images")
    borrow(store)
    cloud = ProcessCloud(CloudName("local"), SITE, directory, SHAPES, images=store)
    (refused,) = (await cloud.launch([request("grid-1", image=TREE)])).values()
    assert isinstance(refused, LaunchRejected)
    assert "the Python of image batch-tree does not run the agent" in str(refused)
    assert await cloud.machines() == ()


# --- speed


async def test_fifty_agents_run_side_by_side(directory: Path) -> None:
    """On an idle host they all run after 2 s."""
    workers = [f"grid-{number}" for number in range(50)]
    cloud = make_tree_cloud(directory, None)

    def context(worker: str) -> bytes:
        return json.dumps({"version": 1, "worker": worker, "service": ["http://127.0.0.1:9"]}).encode()

    try:
        await cloud.launch([request(worker, context(worker), TREE) for worker in workers])
        consoles = [directory / worker / "console.log" for worker in workers]
        await eventually(lambda: all(path.stat().st_size for path in consoles))
    finally:
        answers = await cloud.terminate([MachineId(worker) for worker in workers])
    assert set(answers.values()) == {None}

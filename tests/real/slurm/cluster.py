"""A real Slurm cluster for tests: munged and slurmctld in name spaces of their own, over an unpacked tree.

Either with a network of its own, where each node has an address, as in a cloud; or (``shared``) in the host's network,
on a loopback address that no other cluster has, so that workers of the host's local clouds reach it. Nothing is left
when it is closed: all of its files lie in memory file systems of its own name spaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gridtide.model.ids import QueueName
from gridtide.queues.protocol import Batch
from gridtide.queues.slurm.queue import SlurmQueue, SlurmSettings

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LANG": "C.UTF-8"}

# "overlay" needs an upper directory that is no overlay itself: a memory file system always is none.
_BEGIN = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/munge
hostname "$3"
printf '127.0.0.1 localhost\\n%s %s\\n' "$4" "$3" > etc/hosts
ip link set lo up
exec chroot . /bin/sh -c 'echo ready; while :; do sleep 3600; done'
"""


_BRIDGE = """
set -e
ip link add br0 type bridge
ip address add "$1/16" dev br0
ip link set br0 up
"""

# $1: process of the controller, $2: of the node, $3: a number, $4: the node's address
_WIRE = """
set -e
nsenter --target "$1" --net ip link add "v$3" type veth peer name eth0 netns "$2"
nsenter --target "$1" --net ip link set "v$3" master br0 up
nsenter --target "$2" --net sh -c "ip address add $4/16 dev eth0; ip link set eth0 up"
"""


class Room:
    """A tree as a machine: own pid, mount, uts and ipc name spaces; the host's network, or one of its own."""

    def __init__(self, tree: Path, name: str, address: str, *, shared: bool) -> None:
        self.name = name
        self.address = address
        self.shared = shared
        self.home = tempfile.mkdtemp(prefix="gridtide-slurm-")
        self._started: list[subprocess.Popen[bytes]] = []
        # It says that it is ready only when its root is the tree: before, a file written to it is one of the host.
        flags = (
            "--mount",
            "--uts",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child=SIGKILL",
            *(() if shared else ("--net",)),
        )
        arguments = ("sh", "-c", _BEGIN, "room", self.home, str(tree), name, address)
        self._first = subprocess.Popen(
            ("setpriv", "--pdeathsig=KILL", "unshare", *flags, *arguments),
            stdout=subprocess.PIPE,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == b"ready\n", "the name spaces cannot be made"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        self.pid = int(children.read_text().split()[0])

    @property
    def root(self) -> Path:
        """Its file system, from outside."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command inside."""
        spaces = ("--mount", "--uts", "--ipc", "--pid", "--net", "--root", "--wd")
        return ("nsenter", "--target", str(self.pid), *spaces, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8")

    def run(self, *command: str, input: str = "", timeout: float = 30.0) -> str:
        """Its output. AssertionError when it fails."""
        done = subprocess.run(
            (*self.prefix, *command), input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done.stdout

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """In the foreground of its name space, until the room is closed."""
        assignments = [f"{key}={value}" for key, value in (environment or {}).items()]
        log = (self.root / f"var/log/{Path(command[0]).name}.out").open("ab")
        with log:
            process = subprocess.Popen((*self.prefix, *assignments, *command), stdout=log, stderr=log)
        self._started.append(process)
        return process

    def write(self, path: str, content: str | bytes, mode: int = 0o644, owner: str = "root") -> None:
        """A file of it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)
        if owner != "root":
            self.run("chown", f"{owner}:", path)

    def processes(self, name: str) -> list[int]:
        """Numbers, as the host counts, of its processes of this name."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(entry / "ns/pid") == space and (entry / "comm").read_text().strip() == name:
                        found.append(int(entry.name))
        return found

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """All of its processes of this name; returns when they are gone."""
        for pid in self.processes(name):
            os.kill(pid, number)
        until(lambda: not self.processes(name))

    def close(self) -> None:
        """End everything in it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._first.pid, signal.SIGKILL)
        self._first.wait()
        if self._first.stdout is not None:
            self._first.stdout.close()
        for process in self._started:
            process.wait()
        Path(self.home).rmdir()


@dataclass
class Cluster:
    """Open it with :func:`slurm_cluster`."""

    room: Room
    tree: Path
    munge_key: bytes
    nodes: dict[str, Room] = field(default_factory=dict)
    _wired: int = 0

    @property
    def prefix(self) -> tuple[str, ...]:
        """For the queue's setting ``prefix``."""
        return self.room.prefix

    def start_munge(self) -> None:
        """As the user that the package made."""
        self.room.run("setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "/usr/sbin/munged")

    def start_controller(self) -> None:
        """slurmctld, and wait until it answers."""
        self.room.start("/usr/sbin/slurmctld", "-D")
        until(lambda: "UP" in self._ping())

    def _ping(self) -> str:
        done = subprocess.run(
            (*self.prefix, "scontrol", "ping"), capture_output=True, text=True, timeout=10, check=False
        )
        return done.stdout

    def submit(self, script: str = "sleep 600", *options: str) -> str:
        """The number of the job."""
        return self.room.run("sbatch", "--parsable", "-o", "/dev/null", *options, "--wrap", script).strip()

    def start_node(self, name: str, batch: Batch) -> Room:
        """Follow the orders of a join as an agent does, in name spaces of its own."""
        self._wired += 1
        address = "127.0.0.1" if self.room.shared else f"10.98.{1 + self._wired // 250}.{1 + self._wired % 250}"
        room = Room(self.tree, name, address, shared=self.room.shared)
        self.nodes[name] = room
        if not self.room.shared:
            _host("sh", "-c", _WIRE, "wire", str(self.room.pid), str(room.pid), str(self._wired), address)
        for file in batch.files:
            room.write(file.path, file.content, file.mode, file.owner)
        for command in batch.prepare:
            room.run(*command)
        for service in batch.services:
            room.start(*service.command, environment=service.environment)
        return room

    def end_node(self, name: str) -> None:
        """As if its machine were gone."""
        self.nodes.pop(name).close()

    def close(self) -> None:
        """End everything."""
        for room in [*self.nodes.values(), self.room]:
            room.close()


CONFIGURATION = """
ClusterName=test
SlurmctldHost=ctl({address})
SlurmctldPort=6817
SlurmdPort=6818
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
CommunicationParameters=NoCtldInAddrAny
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
MaxNodeCount=500
TreeWidth=500
SlurmctldTimeout=30
SlurmdTimeout={node_timeout}
KillWait=5
MessageTimeout=3
TCPTimeout=1
DefMemPerCPU=64
{more}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def slurm_cluster(
    tree: Path, *, shared: bool = False, more: str = "", node_timeout: int = 20, programs: Sequence[str] = ()
) -> Iterator[Cluster]:
    """Up when it is entered. ``more`` are lines of slurm.conf.

    ``programs``: paths of programs that these name; they fail until a test writes others.
    """
    with _own_address() if shared else contextlib.nullcontext("10.98.0.1") as address:
        room = Room(tree, "ctl", address, shared=shared)
        cluster = Cluster(room, tree, secrets.token_bytes(128))
        try:
            if not shared:
                _host("nsenter", "--target", str(room.pid), "--net", "sh", "-c", _BRIDGE, "bridge", address)
            directories = ("/etc/munge", "/run/munge", "/var/lib/munge", "/var/log/munge")
            room.run("install", "-d", "-o", "munge", "-g", "munge", *directories)
            room.write("/etc/munge/munge.key", cluster.munge_key, 0o400, "munge")
            text = CONFIGURATION.format(address=address, node_timeout=node_timeout, more=more)
            room.write("/etc/slurm/slurm.conf", text)
            if shared:  # processes of the host have no cgroups of their own
                room.write("/etc/slurm/cgroup.conf", "CgroupPlugin=disabled\n")
            (room.root / "var/spool/slurmctld").mkdir(parents=True)
            for program in programs:
                room.write(program, "#!/bin/sh\nexit 1\n", 0o755)
            cluster.start_munge()
            cluster.start_controller()
            yield cluster
        finally:
            cluster.close()


def queue_of(cluster: Cluster, **changes: Any) -> SlurmQueue:
    """The driver for it."""
    address = cluster.room.address
    settings = SlurmSettings(
        controllers=(f"{address}:6817",),
        munge_key=cluster.room.root / "etc/munge/munge.key",
        prefix=cluster.prefix,
        own_ports=cluster.room.shared,
        loopback=address if cluster.room.shared else "",
        reserve=0,
    )
    return SlurmQueue(QueueName("cluster"), replace(settings, **changes))


def _host(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30, env=_ENVIRONMENT)


@contextlib.contextmanager
def _own_address() -> Iterator[str]:
    """A loopback address that no other cluster of this host uses, as long as it is held."""
    while True:
        number = secrets.randbelow(250 * 250)
        with open(f"/tmp/gridtide-tests-slurm-{number}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            address = f"127.78.{1 + number // 250}.{1 + number % 250}"
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, 6817))
                except OSError:
                    continue
            try:
                yield address
            finally:
                Path(lock.name).unlink()
            return


def until(true: object, *, patience: float = 30.0, why: str = "") -> None:
    """Wait for a condition. AssertionError when it does not come."""
    assert callable(true)
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, why or "it does not come true"
        time.sleep(0.05)

"""A real OpenStack control plane for tests, in name spaces of its own over an unpacked tree of Debian 12.

It uses the host's network, on a loopback address that no other plane has. Two things are kept per machine, below
~/.cache/gridtide-tests: the tree, and the state (database, keys, an image) of a plane that was set up once. So the
first start takes minutes, and every later one seconds. All else lies in a memory file system of its name space and
ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.real.engines import need
from tests.real.openstack.inside.plane import FIRST_ADDRESS, PORTS

INSIDE: Final = Path(__file__).parent / "inside"

_PACKAGES: Final = (
    "mariadb-server",
    "python3-glance",
    "python3-keystone",
    "python3-neutron",
    "python3-nova",
    "python3-placement",
    "python3-pymysql",
    "uwsgi-core",
    "uwsgi-plugin-python3",
)
_UNPACKED: Final = ("glance-common", "neutron-common", "nova-common")
"""Their files alone are wanted: what they would set up asks questions, and takes a running system."""

_SPARED: Final = (
    "/usr/include/*",
    "/usr/lib/python3/dist-packages/botocore/data/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
)

FORGOTTEN: Final = 86_400.0

# "overlay" needs an upper directory that is no overlay itself: a memory file system always is none.
_BEGIN: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
hostname plane
printf '127.0.0.1 localhost\\n%s plane\\n' "$4" > etc/hosts
mkdir -p plane/lib/everywhere-1.dist-info
cp "$3"/*.py plane/lib/
printf 'Name: everywhere\\nVersion: 1\\n' > plane/lib/everywhere-1.dist-info/METADATA
printf '[neutron.ml2.mechanism_drivers]\\neverywhere = ml2_everywhere:EverywhereDriver\\n' \
    > plane/lib/everywhere-1.dist-info/entry_points.txt
if [ -n "$5" ]; then cp -a "$5" plane/state; fi
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/bin/python3 /plane/lib/plane.py "$4"
"""


class ControlPlane:
    """Open it with :func:`control_plane`."""

    def __init__(self, tree: Path, address: str, state: Path | None) -> None:
        self.address = address
        self.auth_url = f"http://{address}:{PORTS['keystone']}/v3"
        self._home = tempfile.mkdtemp(prefix="gridtide-openstack-")
        # Nothing of it outlives this process, however that ends.
        alone = (
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child=SIGKILL",
        )
        given = ("sh", "-c", _BEGIN, "plane", self._home, str(tree), str(INSIDE), address, str(state or ""))
        self._process = subprocess.Popen(
            (*alone, *given), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.told: list[str] = []

    @property
    def root(self) -> Path:
        """Its file system, from outside: ``plane/log`` has the logs."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return Path(f"/proc/{children.split()[0]}/root")

    def wait_for(self, word: str) -> None:
        """Until it tells this. AssertionError, with the ends of its logs, when it ends before."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(line.decode(errors="replace"))
            if self.told[-1].startswith(word):
                return
        raise AssertionError("the control plane does not come up:\n" + "".join(self.told))

    def save(self, state: Path) -> None:
        """Stop it, and keep what it would start from again."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"stop\n")
        self._process.stdin.flush()
        self.wait_for("stopped")
        subprocess.run(("cp", "-a", self.root / "plane/state", state), check=True)

    def close(self) -> None:
        """End everything in it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        Path(self._home).rmdir()


@contextlib.contextmanager
def control_plane() -> Iterator[str]:
    """The address of a plane that is up. The processes of one test run share one: whoever came first ends it last."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the name spaces of a control plane")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)
    place = Path(tempfile.gettempdir()) / f"gridtide-openstack-{run}"
    place.mkdir(exist_ok=True)
    told = place / "address"
    with (place / "first").open("w") as first, (place / "users").open("w") as users:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if told.exists():
            fcntl.flock(first, fcntl.LOCK_UN)
            yield told.read_text()
            return
        with _started() as address:
            told.write_text(address)
            fcntl.flock(first, fcntl.LOCK_UN)
            yield address
            fcntl.flock(first, fcntl.LOCK_EX)
            told.unlink()
            fcntl.flock(users, fcntl.LOCK_UN)
            fcntl.flock(users, fcntl.LOCK_EX)
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _started() -> Iterator[str]:
    tree = kept("tree", [*_PACKAGES, *_UNPACKED, *_SPARED], _build_tree)
    sources = [path.read_text() for path in sorted(INSIDE.glob("*.py"))]
    state = kept("state", [tree.parent.name, *sources], lambda place: _set_up(tree, place))
    with _own_address() as address:
        plane = ControlPlane(tree, address, state)
        try:
            plane.wait_for("ready")
            yield address
        finally:
            plane.close()


def kept(what: str, made_from: list[str], make: Callable[[Path], None]) -> Path:
    """Made once per machine for each state of its sources. What nobody used for a day is removed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gridtide-tests"
    key = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    directory = cache / f"openstack-{what}-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / what).exists():
            shutil.rmtree(directory / "new", ignore_errors=True)
            make(directory / "new")
            (directory / "new").rename(directory / what)
        os.utime(directory)
        for other in cache.glob(f"openstack-{what}-*"):
            if time.time() - other.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(other, ignore_errors=True)
    return directory / what


def _build_tree(place: Path) -> None:
    need({"mmdebstrap": "mmdebstrap"})
    unpack = (
        'chroot "$1" sh -euc "mkdir /more; cd /more; apt-get -q -o APT::Sandbox::User=root download '
        f'{" ".join(_UNPACKED)}; for each in *.deb; do dpkg-deb -x \\$each /more; rm \\$each; done"'
    )
    spared = [f"--dpkgopt=path-exclude={pattern}" for pattern in _SPARED]
    apt = ('--aptopt=Apt::Install-Recommends "false"', "--aptopt=Acquire::Retries 3")
    what = ("--mode=root", "--variant=minbase", "--components=main", f"--include={','.join(_PACKAGES)}")
    # In name spaces of its own: one that is killed leaves no mount behind.
    alone = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
    command: tuple[str, ...] = (
        *alone,
        "mmdebstrap",
        "--quiet",
        *what,
        *spared,
        *apt,
        f"--customize-hook={unpack}",
        "bookworm",
        str(place),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"the tree cannot be made: {done.stderr[-2000:]}"


def _set_up(tree: Path, place: Path) -> None:
    plane = ControlPlane(tree, FIRST_ADDRESS, None)
    try:
        plane.wait_for("ready")
        plane.save(place)
    finally:
        plane.close()


@contextlib.contextmanager
def _own_address() -> Iterator[str]:
    """A loopback address that no other plane of this host has, as long as it is held."""
    while True:
        address = f"127.79.{1 + secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"
        lock = Path(tempfile.gettempdir()) / f"gridtide-openstack-{address}.lock"
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for port in PORTS.values():
                    with socket.socket() as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, port))
            except OSError:
                continue
            try:
                yield address
            finally:
                lock.unlink()
            return

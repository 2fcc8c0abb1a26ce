"""A machine of the process cloud with a root of its own: its directory, and how its first process is started.

In the machine's directory, beside what every machine has: ``lower`` (a link to the image's tree), ``upper`` and
``work`` (the overlay's, so that what a machine writes is on disk and goes with it), ``root`` (where the overlay is
mounted: in the machine's own mount name space, so that the host never sees it). ``gridtide/guest/process.sh`` does the
rest.

Outside of it only ``unshare`` waits. It ends after everything in the name spaces has, so that the lock that it holds
is free when nothing of the machine is left; therefore it carries no marker, and is never killed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gridtide import guest, locks
from gridtide.clouds.local import FirstProcess
from gridtide.clouds.local_home import write_private
from gridtide.clouds.protocol import LaunchRequest
from gridtide.errors import ImageError, ImageNotFound
from gridtide.images.image import TreeImage

HOME: Final = "var/lib/gridtide"
"""Of the agent in the machine, as in a virtual one."""

LIBRARY: Final = "usr/lib/gridtide"

PROGRAMS: Final[Mapping[str, str]] = {"unshare": "util-linux", "ip": "iproute2"}
"""What a launch needs of the host -> Debian package. ``ip`` for machines with a network of their own only."""

_DIRECTORIES: Final = {
    **dict.fromkeys(
        ("dev", "dev/pts", "dev/shm", "etc", "mnt", "proc", "run", "sys", "usr", "usr/lib", LIBRARY), 0o755
    ),
    **dict.fromkeys(("var", "var/lib"), 0o755),
    "tmp": 0o1777,
    HOME: 0o700,
}
_DEVICES: Final = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
"""Linux's numbers (Documentation/admin-guide/devices.txt)."""
_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": f"/{HOME}",
}

_COMPILE: Final = (
    "import importlib.util as u, marshal, sys\n"
    "source = sys.stdin.buffer.read()\n"
    "code = compile(source, sys.argv[1], 'exec', dont_inherit=True, optimize=0)\n"
    "flags = (1).to_bytes(4, 'little')\n"
    "sys.stdout.buffer.write(u.MAGIC_NUMBER + flags + u.source_hash(source) + marshal.dumps(code))\n"
)
"""Byte code that is never checked against its source (PEP 552): reading the agent anew costs each start 0.1 s."""

_APPLY: Final = (
    "import json, sys; sys.path.insert(0, '/usr/lib/gridtide'); import machine\n"
    "path = machine.HOME + '/context.json'\n"
    "context = json.load(open(path))\n"
    "if context.pop('fetch', False): context.setdefault('scripts', []).extend(machine.fetch(context))\n"
    "machine.apply(context)\n"
    "machine.write(path, json.dumps(context), 0o600, int(sys.argv[1]))\n"
)
"""Files and scripts of a context, as process 1 of a virtual machine treats them."""


class Roots:
    """Makes directories of machines that have an image. Remembers byte code."""

    def __init__(self, agent: Path) -> None:
        self._agent = agent
        self._compiled: dict[tuple[str, int], bytes] = {}

    def furnish(self, image: TreeImage, worker: str, home: Path, *, with_agent: bool) -> None:
        """Everything but the context. OSError, ImageError."""
        (home / "lower").symlink_to(image.tree)
        (home / "work").mkdir(mode=0o755)
        (home / "root").mkdir(mode=0o755)
        upper = home / "upper"
        upper.mkdir(mode=0o755)
        upper.chmod(0o755)
        for name, mode in _DIRECTORIES.items():
            (upper / name).mkdir()
            (upper / name).chmod(mode)
        for name, (major, minor) in _DEVICES.items():
            os.mknod(upper / "dev" / name, stat.S_IFCHR, os.makedev(major, minor))
            (upper / "dev" / name).chmod(0o666)
        for name, target in _LINKS.items():
            (upper / "dev" / name).symlink_to(target)
        _write(upper / "etc/hostname", f"{worker}\n")
        _write(upper / "etc/hosts", f"{_of_host('/etc/hosts').rstrip()}\n")
        _write(upper / "etc/resolv.conf", _of_host("/etc/resolv.conf"))
        if with_agent:
            (upper / LIBRARY / "agent.pyc").write_bytes(self._byte_code(image))
            (upper / LIBRARY / "agent.pyc").chmod(0o644)
            shutil.copyfile(guest.MACHINE, upper / LIBRARY / "machine.py")

    def _byte_code(self, image: TreeImage) -> bytes:
        """Of the agent, by the image's own Python."""
        key = (image.digest, self._agent.stat().st_mtime_ns)
        if key not in self._compiled:
            command = ["chroot", str(image.tree), "/usr/bin/python3", "-I", "-S", "-c", _COMPILE]
            done = subprocess.run(  # noqa: S603
                [*command, f"/{LIBRARY}/agent.py"],
                input=self._agent.read_bytes(),
                capture_output=True,
                check=False,
                env=ENVIRONMENT,
            )
            if done.returncode:
                words = done.stderr.decode(errors="replace").strip().splitlines()
                raise ImageError(
                    f"the Python of image {image.name} does not run the agent: {words[-1] if words else 'no word'}",
                    remedy="add the packages python3-minimal and libpython3-stdlib to its recipe",
                )
            self._compiled[key] = done.stdout
        return self._compiled[key]


def instruct(request: LaunchRequest, home: Path) -> None:
    """Put the user-data in, in place of any before."""
    place = home / "upper" / HOME
    (place / "context.new").unlink(missing_ok=True)
    write_private(place / "context.new", request.user_data)
    if request.user_data.startswith(b"#!"):
        (place / "context.new").chmod(0o700)
    if not _is_privileged(request.user_data):
        os.chown(place, guest.NUMBER, guest.NUMBER)
        os.chown(place / "context.new", guest.NUMBER, guest.NUMBER)
    (place / "context.new").rename(place / "context.json")


def first_process(
    request: LaunchRequest, home: Path, marker: tuple[str, str], command: Sequence[str] | None, more: Mapping[str, str]
) -> FirstProcess:
    """The line that starts it. ``marker``: a variable and its value; ``more``: variables for process.sh.

    ``command`` is run in place of the agent. ImageNotFound when the image has gone.
    """
    tree = Path(os.readlink(home / "lower"))
    busybox = str(tree / "usr/bin/busybox")
    name_spaces = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
    inside = (busybox, "env", "=".join(marker), busybox, "sh", str(guest.PROCESS), str(tree), request.worker)
    return FirstProcess(
        (*name_spaces, *inside, *(command or _agent(request.user_data))),
        {**ENVIRONMENT, **more},
        (_hold(tree),),
        marked=False,
    )


def _agent(user_data: bytes) -> tuple[str, ...]:
    """The agent as the user that it needs to be; before it, files and scripts of the context as root."""
    start = f"exec /usr/bin/python3 -I /{LIBRARY}/agent.pyc --context /{HOME}/context.json"
    if user_data.startswith(b"#!"):
        return (f"/{HOME}/context.json",)
    privileged = _is_privileged(user_data)
    if not privileged:
        start = start.replace("exec ", f"exec setpriv --reuid={guest.NUMBER} --regid={guest.NUMBER} --clear-groups ")
    if not any(key in _context(user_data) for key in ("files", "scripts", "fetch")):
        return ("/bin/sh", "-c", start)
    owner = 0 if privileged else guest.NUMBER
    prepare = f'[ -e applied ] || {{ /usr/bin/python3 -I -c "$0" {owner} && : >applied; }} || exit 1; '
    return ("/bin/sh", "-c", prepare + start, _APPLY)


def _is_privileged(user_data: bytes) -> bool:
    return user_data.startswith(b"#!") or _context(user_data).get("privileged") is True


def _context(user_data: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(user_data)
    except ValueError:
        return {}  # the agent tells what is wrong with it, on the console
    return document if isinstance(document, dict) else {}


def _hold(tree: Path) -> int:
    """An open file with the lock that says that the image is in use: the machine inherits it."""
    held = tree.parent / "contents.txt"
    try:
        handle = os.open(held, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _gone(tree) from None
    try:
        locks.share_lock(handle)
        if not os.path.samestat(os.fstat(handle), os.stat(held)):
            raise _gone(tree)
    except (OSError, ImageNotFound) as error:
        os.close(handle)
        raise _gone(tree) from error
    return handle


def _gone(tree: Path) -> ImageNotFound:
    return ImageNotFound("the machine's image has been removed", where=str(tree), remedy="launch another worker")


def _of_host(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)

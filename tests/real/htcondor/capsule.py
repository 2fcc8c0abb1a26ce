"""A small machine made of name spaces: own process, mount, host name and IPC tables, an overlay over a tree as root.

Everything in it ends with one process. It shares the network of the host, where it may only use loopback addresses.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_CLEAN: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"}
_INIT: Final = """\
set -e
mount --make-rprivate /
hostname {name}
mount -t overlay overlay -o lowerdir={tree},upperdir={home}/upper,workdir={home}/work {home}/root
mount -t proc proc {home}/root/proc
mount --rbind /dev {home}/root/dev
mount -t tmpfs -o mode=755 tmpfs {home}/root/run
mount -t tmpfs -o mode=1777 tmpfs {home}/root/tmp
: > {home}/ready
while :; do sleep 3600 & wait; done
"""


class Capsule:
    """``home`` is a directory of its own. Files that it shall have at the start go below ``upper``."""

    def __init__(self, tree: Path, home: Path, name: str) -> None:
        self.tree, self.home, self.name = tree, home, name
        self.upper = home / "upper"
        for part in ("upper", "work", "root"):
            (home / part).mkdir(parents=True)
        home.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """A file that is there when it starts."""
        target = self.upper / path.lstrip("/")
        missing = [each for each in target.parents if not each.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        for directory in missing:
            below = self.tree / directory.relative_to(self.upper)
            if below.is_dir():
                shutil.copystat(below, directory)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def start(self) -> None:
        """Returns when its file system is there."""
        script = self.home / "init.sh"
        script.write_text(_INIT.format(name=self.name, tree=self.tree, home=self.home), encoding="utf-8")
        apart = [
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child=SIGKILL",
            "--",
            "sh",
            str(script),
        ]
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                apart, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_CLEAN, start_new_session=True
            )
        end = time.monotonic() + 20
        while not (self.home / "ready").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start: {(self.home / 'log').read_text()}")
            time.sleep(0.01)

    def inside(self, command: Sequence[str], user: str = "root") -> list[str]:
        """The command line that runs a program in it."""
        enter = ["nsenter", "-t", str(self._first()), "-m", "-u", "-i", "-p", "--"]
        return [*enter, "chroot", f"--userspec={user}", str(self.home / "root"), *command]

    def run(self, *command: str, user: str = "root", check: bool = True, stdin: str = "") -> str:
        """Run to the end; what it printed. RuntimeError when it fails."""
        done = subprocess.run(
            self.inside(command, user), env=_CLEAN, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed in {self.name}: {done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program that stays."""
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                self.inside(command),
                env={**_CLEAN, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def processes(self, name: str) -> list[int]:
        """Process numbers, as the host has them, of the programs of this name in it."""
        mine = os.readlink(f"/proc/{self._first()}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if os.readlink(entry / "ns/pid") == mine and (entry / "comm").read_text().strip() == name[:15]:
                    found.append(int(entry.name))
            except OSError:  # it has just ended
                continue
        return found

    def signal(self, name: str, number: signal.Signals) -> None:
        """To all programs of this name. RuntimeError when there is none."""
        found = self.processes(name)
        if not found:
            raise RuntimeError(f"no {name} runs in {self.name}")
        for process in found:
            with contextlib.suppress(ProcessLookupError):  # a fork that has just ended
                os.kill(process, number)

    def kill(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _first(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii")
        return int(children.split()[0])

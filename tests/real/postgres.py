"""A PostgreSQL server of one's own, for tests: a cluster in a temporary directory, reached by a Unix socket there."""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# PostgreSQL refuses to run as root: whoever of these exists runs it then.
_USERS = ("postgres", "nobody")


@dataclass
class PostgresServer:
    """A running server. ``new_database()`` gives the URL of an empty database."""

    programs: Path
    directory: Path
    user: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{self.user}@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.run("createdb", "-h", str(self.directory), "-U", self.user, "-T", "template0", name)
        return self.url(name)

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-k {self.directory} -c listen_addresses="
        log = str(self.directory / "server.log")
        self.run("pg_ctl", "-D", self._data, "-l", log, "-o", options, "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        """``immediate`` is a crash as far as the data are concerned; ``fast`` is orderly."""
        self.run("pg_ctl", "-D", self._data, "-m", mode, "-w", "-t", "60", "stop")

    def process(self) -> int:
        """The process number of the postmaster."""
        return int(Path(self._data, "postmaster.pid").read_text(encoding="ascii").split()[0])

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs. What it printed is in the error when it fails."""
        found = pwd.getpwnam(self.user)
        root = os.geteuid() == 0
        with tempfile.TemporaryFile() as output:  # a pipe would stay open as long as the server lives
            done = subprocess.run(
                [self.programs / program, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=90,
                check=False,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                user=found.pw_uid if root else None,
                group=found.pw_gid if root else None,
                extra_groups=[] if root else None,
            )
            output.seek(0)
            text = output.read().decode(errors="replace")
        assert done.returncode == 0, f"{program} failed: {text}"

    @property
    def _data(self) -> str:
        return str(self.directory / "data")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server for as long as the block lasts. Skips the test where PostgreSQL cannot be had."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed and cannot be installed here: install the package postgresql")
    user = _user()
    # Not pytest's own directory: the path of a socket is at most 107 bytes long, and another user must reach it.
    directory = Path(tempfile.mkdtemp(prefix="gridtide-pg-"))
    found = pwd.getpwnam(user)
    if os.geteuid() == 0:
        os.chown(directory, found.pw_uid, found.pw_gid)
    server = PostgresServer(programs, directory, user)
    try:
        server.run("initdb", "-D", str(directory / "data"), "-U", user, "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        yield server
    finally:
        _end(server)
        shutil.rmtree(directory, ignore_errors=True)


def _end(server: PostgresServer) -> None:
    try:
        process = server.process()
    except FileNotFoundError:  # it is not running
        return
    os.kill(process, signal.SIGCONT)
    server.stop()


def _user() -> str:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in names)


@functools.cache
def _programs() -> Path | None:
    found = _find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(["apt-get", *command], env=environment, capture_output=True, timeout=600, check=False)
        found = _find()
    return found


def _find() -> Path | None:
    # Debian keeps the server's programs out of PATH, one directory per version.
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*newest, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((path for path in candidates if (path / "initdb").exists() and (path / "pg_ctl").exists()), None)

"""A real site in a directory of its own: the real command, real processes, real HTTP. For tests and benchmarks.

with LiveSite(directory, site_file_text) as site:
    number = site.submit('Executable = "/bin/echo"; Arguments = "hello";')
    site.wait_for_jobs(number)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

_LOOK_EVERY = 0.05


def site_text(
    *,
    name: str | None = None,
    maximum: int = 4,
    minimum: int = 0,
    cores: int = 1,
    idle_for: str = "1 s",
    extra: str = "",
    group: str = "",
) -> str:
    """A small site file: pilot queue, process cloud, one shape, a port of the kernel's choosing.

    Without ``name`` the site gets one of its own: its machines are told apart by it from those of sites beside it.
    """
    return f"""
[site]
name = "{name or "live-" + secrets.token_hex(5)}"

[service]
listen = "127.0.0.1:0"

[queues.jobs]
type = "pilot"

[clouds.local]
type = "process"
quota = {{ machines = {max(16, 2 * maximum)} }}
shapes = {{ slot = {{ cores = {cores}, memory = "{cores} GiB" }} }}

[groups.workers]
queue = "jobs"
clouds = ["local"]
minimum = {minimum}
maximum = {maximum}
policy = {{ type = "queue", idle_for = "{idle_for}" }}
{group}
{extra}
"""


class LiveSite:
    """``python`` runs ``gridtide up``. Leaving the ``with`` block ends the controller and every machine of the site.

    ``path``: directories in which the controller finds packages that are not installed, such as plug-ins.
    """

    def __init__(self, directory: Path, text: str, *, python: str = sys.executable, path: Sequence[Path] = ()) -> None:
        self.directory = directory
        self.file = directory / "site.toml"
        self.state = directory / "state"
        self.log = directory / "up.log"
        self._python = python
        self._path = os.pathsep.join(str(each) for each in path)
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text, encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(process, signal.SIGKILL)

    # --- the process

    def start(self, *, wait: bool = True) -> None:
        """Start the controller, and wait until its service answers."""
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and site file)
                [self._python, "-m", "gridtide.cli.main", "up", str(self.file)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **({"PYTHONPATH": self._path} if self._path else {})},
                stdout=sink,
                stderr=sink,
            )
        if wait:
            self.wait_for_service()

    def wait_for_service(self, *, timeout: float = 120.0) -> None:
        """Until it answers."""
        self.wait_until(self._answers, timeout=timeout, what="the service to answer")

    def kill(self) -> None:
        """SIGKILL to the controller, at whatever it is doing."""
        self._stop(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM to the controller; its exit code."""
        return self._stop(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Of the controller."""
        if self._process is None:
            raise RuntimeError("the site is not running")
        return self._process.pid

    def processes(self) -> list[int]:
        """All processes of the site's machines, found by their marker."""
        marker = f"GRIDTIDE_MACHINE={self._name()}.".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(each.startswith(marker) for each in environment):
                    found.append(int(entry.name))
        return found

    def _stop(self, number: signal.Signals) -> int:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(timeout=120)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the site did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
        try:
            said = json.loads((self.state / "service.json").read_text(encoding="utf-8"))
            if self._process is None or said["pid"] != self._process.pid:
                return False
            token = (self.state / "admin.token").read_text(encoding="utf-8").strip()
            client = httpx.Client(base_url=said["url"], headers={"Authorization": f"Bearer {token}"}, timeout=30.0)
            client.get("/healthz").raise_for_status()
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            return False
        self._client = client
        return True

    def _name(self) -> str:
        import tomllib

        return str(tomllib.loads(self.file.read_text(encoding="utf-8"))["site"]["name"])

    # --- the service

    @property
    def client(self) -> httpx.Client:
        """With the administrator's token."""
        if self._client is None:
            raise RuntimeError("the site is not running")
        return self._client

    def get(self, path: str, **parameters: str | int) -> Any:
        """The JSON answer of a GET."""
        answer = self.client.get(path, params=parameters)
        if answer.is_error:
            raise RuntimeError(f"GET {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """The JSON answer of a POST; None when it has no content."""
        answer = self.client.post(path, json=body)
        if answer.is_error:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def submit(self, description: str) -> int:
        """Submit a job description without files; the submission's number."""
        return int(self.post("/v1/submissions", {"description": description, "files": {}})["number"])

    def counts(self, submission: int) -> dict[str, int]:
        """Jobs of a submission by state."""
        return dict(self.get(f"/v1/submissions/{submission}")["jobs"])

    def wait_for_jobs(self, submission: int, *, timeout: float = 180.0) -> dict[str, int]:
        """Wait until no job of the submission waits or runs; the counts then."""
        counts: dict[str, int] = {}

        def ended() -> bool:
            nonlocal counts
            counts = self.counts(submission)  # one look: between two a job may change from running to waiting
            return not counts.get("waiting", 0) and not counts.get("running", 0)

        self.wait_until(ended, timeout=timeout, what=f"the jobs of submission {submission} to end")
        return counts

    def wait_for_no_workers(self, *, timeout: float = 180.0) -> None:
        """Wait until every worker is gone."""
        self.wait_until(lambda: not self.get("/v1/workers")["workers"], timeout=timeout, what="the workers to go")

    def wait_until(self, holds: Callable[[], bool], *, timeout: float, what: str) -> None:
        """Poll until it holds; RuntimeError with the end of the log when it does not in time."""
        until = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > until:
                tail = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
                raise RuntimeError(f"waited {timeout:g} s in vain for {what}; the log ends:\n{tail}")
            time.sleep(_LOOK_EVERY)

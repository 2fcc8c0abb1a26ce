"""``up`` and ``down``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gridtide.cli import locate
from gridtide.cli.exit_codes import ExitCode
from gridtide.errors import Conflict
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobState
from gridtide.site.starter import starter
from tests.unit.cli import samples
from tests.unit.cli.conftest import HandClock, Run, lines
from tests.unit.cli.fake_service import Answer, FakeService, refuse


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A good site file in the present directory; nothing runs."""
    path = tmp_path / "site.toml"
    path.write_text(starter("torino"))
    (tmp_path / "state").mkdir()
    return path


@pytest.fixture
def process(site: Path, service: FakeService, clock: HandClock) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ``service.json`` names as the one that serves, and that ends on SIGTERM."""
    clock.really = 0.05
    started = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        note(site, service.url, started.pid, locate.process_started(started.pid))
        yield started
    finally:
        started.kill()
        started.wait()


def note(site: Path, url: str, process: int | None, started: int | None) -> None:
    locate.write_service_file(site.parent / "state", locate.ServiceFile(url, None, process, started))


def test_up_runs_the_site_and_says_where(run: Run, runtime: ModuleType, site: Path) -> None:
    async def run_site(path: Path, *, ready: Callable[[str], None]) -> None:
        assert path == site
        ready("http://127.0.0.1:1234")

    runtime.run_site = run_site  # type: ignore[attr-defined]
    ran = run("up")
    assert (ran.code, ran.stderr) == (0, "")
    assert "http://127.0.0.1:1234" in ran.stdout
    noted = json.loads((site.parent / "state/service.json").read_text())
    assert noted["pid"] == os.getpid()
    assert noted["started"] == locate.process_started(os.getpid())
    assert run("up", str(site), "--json").document == {"url": "http://127.0.0.1:1234"}


def test_up_keeps_the_authority_that_the_site_noted(run: Run, runtime: ModuleType, site: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\n"

    async def run_site(path: Path, *, ready: Callable[[str], None]) -> None:
        locate.write_service_file(path.parent / "state", locate.ServiceFile("https://a:1", pem, None, None))
        ready("https://a:1")

    runtime.run_site = run_site  # type: ignore[attr-defined]
    assert run("up").code == 0
    assert json.loads((site.parent / "state/service.json").read_text())["ca"] == pem


def test_up_tells_why_it_cannot(run: Run, runtime: ModuleType, site: Path) -> None:
    async def run_site(path: Path, *, ready: Callable[[str], None]) -> None:
        raise Conflict("the port is taken", where="127.0.0.1:8470")

    runtime.run_site = run_site  # type: ignore[attr-defined]
    ran = run("up")
    assert (ran.code, ran.error) == (ExitCode.CONFLICT, "gridtide: 127.0.0.1:8470: the port is taken")


def test_up_without_a_site_file(run: Run) -> None:
    ran = run("up")
    assert ran.code == ExitCode.NOT_FOUND
    assert "gridtide init" in ran.error


def test_up_with_a_wrong_site_file(run: Run, site: Path) -> None:
    site.write_text(site.read_text().replace("minimum", "minimun"))
    ran = run("up", "--detach")
    assert ran.code == ExitCode.DESCRIPTION
    assert "minimun" in ran.error


class FakeProcess:
    """A started ``gridtide up``."""

    pid = os.getpid()

    def __init__(self, code: int | None, note: Callable[[], None]) -> None:
        self.code = code
        self.note = note

    def poll(self) -> int | None:
        self.note()
        return self.code


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None, str, Callable[[], None]], list[list[str]]]:
    """Let ``--detach`` start something that says ``text`` and ends with ``code``; returns the command lines."""

    def prepare(code: int | None, text: str, note: Callable[[], None]) -> list[list[str]]:
        started: list[list[str]] = []

        def popen(arguments: list[str], **options: object) -> FakeProcess:
            started.append(arguments)
            assert options["start_new_session"] is True
            stdout = options["stdout"]
            assert hasattr(stdout, "write")
            stdout.write(text.encode())
            return FakeProcess(code, note)

        monkeypatch.setattr("subprocess.Popen", popen)
        return started

    return prepare


def test_detach_returns_when_the_site_is_well(
    run: Run,
    service: FakeService,
    site: Path,
    start: Callable[[int | None, str, Callable[[], None]], list[list[str]]],
) -> None:
    service.on("GET", "/healthz", refuse(503, "StoreUnavailable"), Answer(document={"ok": True}))
    mine = locate.process_started(os.getpid())
    started = start(None, "", lambda: note(site, service.url, os.getpid(), mine))
    ran = run("up", "--detach", "--json")
    assert ran.code == 0
    assert ran.document == {"url": service.url, "log": str(site.parent / "state/gridtide.log")}
    assert started == [[sys.executable, "-m", "gridtide.cli.main", "up", str(site)]]
    assert len(service.calls("GET", "/healthz")) == 2
    # Once more: it runs already, and nothing is started.
    again = run("up", "--detach")
    assert again.stdout.strip() == f"The site is up at {service.url}"
    assert "running already" in again.error
    assert len(started) == 1


@pytest.mark.parametrize(
    ("ended", "code"), [(3, ExitCode.DESCRIPTION), (7, ExitCode.CONFLICT), (70, ExitCode.FAILED), (-9, ExitCode.FAILED)]
)
def test_detach_tells_the_last_words_of_a_site_that_did_not_start(
    run: Run,
    site: Path,
    start: Callable[[int | None, str, Callable[[], None]], list[list[str]]],
    ended: int,
    code: ExitCode,
) -> None:
    (site.parent / "state/gridtide.log").write_text("gridtide: of another day\n")
    start(ended, "something\ngridtide: the port is taken\n\n", lambda: None)
    ran = run("up", "--detach")
    assert ran.code == code
    assert "the site did not start: the port is taken" in ran.error
    assert "another day" not in ran.error


def test_detach_gives_up_waiting_but_ends_nothing(
    run: Run, site: Path, start: Callable[[int | None, str, Callable[[], None]], list[list[str]]], clock: HandClock
) -> None:
    start(None, "", lambda: None)
    ran = run("up", "--detach", "--timeout", "5")
    assert ran.code == ExitCode.TIMED_OUT
    assert str(os.getpid()) in ran.error


def closing(service: FakeService) -> None:
    busy, draining = samples.worker(), samples.worker("grid-bbbbbbbb", WorkerState.DRAINING)
    service.on("POST", "/v1/site/close", Answer(document={"closing": True}))
    service.on(
        "GET",
        "/v1/status",
        Answer(document=samples.status(busy, draining)),
        refuse(503, "StoreUnavailable"),
        Answer(document=samples.status(draining)),
        Answer(document=samples.status(jobs={JobState.WAITING: 2})),
    )


def test_down_waits_for_the_workers_then_stops_the_process(
    run: Run, service: FakeService, site: Path, process: subprocess.Popen[bytes]
) -> None:
    closing(service)
    ran = run("down")
    assert ran.code == 0
    assert process.wait(5) == -signal.SIGTERM
    assert lines(ran.stderr) == [
        "Closing: 2 workers left: 1 joined, 1 draining; 1 job running",
        "Closing: 1 worker left: 1 draining; 1 job running",
        "2 jobs still waiting, kept for the next `gridtide up`",
    ]
    assert "stopped" in ran.stdout


def test_down_in_json(run: Run, service: FakeService, site: Path, process: subprocess.Popen[bytes]) -> None:
    closing(service)
    ran = run("down", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.document == {"closed": True, "stopped": True}


def test_leaving_workers_needs_no_service(run: Run, site: Path, process: subprocess.Popen[bytes]) -> None:
    ran = run("down", "--leave-workers", "--json")
    assert ran.document == {"closed": False, "stopped": True}
    assert process.wait(5) == -signal.SIGTERM


def test_down_now_asks_and_forces_what_is_left(
    run: Run, service: FakeService, site: Path, process: subprocess.Popen[bytes]
) -> None:
    closing(service)
    ending = samples.worker("grid-cccccccc", WorkerState.TERMINATING)
    service.on("GET", "/v1/workers", Answer(document=samples.workers(samples.worker(), ending)))
    service.on("POST", "/v1/workers/drain", Answer(document={}))
    assert run("down", "--now").code == ExitCode.USAGE
    assert service.asked == []
    assert run("down", "--now", "--yes").code == 0
    for asked in service.calls("POST", "/v1/workers/drain"):
        assert asked.body == {"workers": ["grid-k3v9q2ab"], "force": True}


def test_down_with_a_time_limit_lets_the_process_run(
    run: Run, service: FakeService, site: Path, process: subprocess.Popen[bytes]
) -> None:
    service.on("POST", "/v1/site/close", Answer(document={"closing": True}))
    service.on("GET", "/v1/status", Answer(document=samples.status(samples.worker())))
    ran = run("down", "--timeout", "2", "--json")
    assert ran.code == ExitCode.TIMED_OUT
    assert process.poll() is None


def test_another_process_with_that_number_is_not_touched(run: Run, service: FakeService, site: Path) -> None:
    mine = locate.process_started(os.getpid())
    assert mine is not None
    note(site, service.url, os.getpid(), mine + 1)
    ran = run("down", "--leave-workers", "--json")
    assert ran.document == {"closed": False, "stopped": False}


def test_a_process_that_is_not_known_for_sure_is_not_touched(run: Run, service: FakeService, site: Path) -> None:
    note(site, service.url, os.getpid(), None)
    assert run("down", "--leave-workers").code == ExitCode.NO_SERVICE


def test_down_by_url_closes_but_stops_nothing(
    ask: Run, service: FakeService, site: Path, process: subprocess.Popen[bytes]
) -> None:
    closing(service)
    assert ask("down", "--json").document == {"closed": True, "stopped": False}
    assert process.poll() is None

"""``up`` and ``down``: the site's own process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from gridtide.cli import views
from gridtide.cli.asking import ask, progress
from gridtide.cli.client import MOST_WORKERS, Client, patiently
from gridtide.cli.command import Session, command
from gridtide.cli.exit_codes import ExitCode
from gridtide.cli.human import number
from gridtide.cli.locate import (
    LOG_FILE,
    Address,
    ServiceFile,
    Where,
    process_started,
    read_service_file,
    state_directory,
    write_service_file,
)
from gridtide.cli.problems import Failed, NoService, TimedOut, WrongUsage
from gridtide.errors import Conflict, GridtideError, SiteFileError
from gridtide.model.workers import WorkerState

_POLL: Final = 0.2
"""Seconds between two looks at a process or a site that is coming or going."""

_PATIENCE: Final = 60.0
"""Seconds for which ``down`` bears a service that does not answer: it may be restarting."""

_STOP_LIMIT: Final = 30.0
"""Seconds that a controller gets to write down what it knows after SIGTERM."""

_YOUNG: Final = 200_000
"""New objects after which the garbage collector looks at them. Fewer: it looks at what each reading of a large site
makes, which is freed without it. More: garbage in circles, which is rare, waits for longer."""

_GIVE_WAY: Final = 0.0005
"""Seconds that a thread may keep the interpreter while the loop wants it. With Python's 5 ms a request waits for so
long each time that the loop has waited for a socket, while ten thousand rows are read."""

_START_ERRORS: Final[Mapping[int, type[GridtideError]]] = {
    ExitCode.DESCRIPTION: SiteFileError,
    ExitCode.CONFLICT: Conflict,
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "up", connects=False, panel="The site")(up)
    command(app, "down", panel="The site")(down)


def up(
    session: Session,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The site file.", show_default=False)] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start in the background; return when ready.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for --detach.")] = 60.0,
) -> None:
    """Run the site until SIGTERM or Ctrl-C. Workers live on; the next `up` finds them again."""
    site_file = Where(site=file).site_file().resolve()
    from gridtide.site.loader import load

    state = load(site_file).state
    if detach:
        url = _start_in_background(session, site_file, state, timeout)
        session.output.document({"url": url, "log": str(state / LOG_FILE)})
        session.output.show(f"The site is up at {url}")
        return
    from gridtide.runtime import run_site

    def ready(url: str) -> None:
        _note_process(state, url)
        session.output.document({"url": url})
        session.output.show(f"The site is up at {url} (Ctrl-C stops the controller and leaves the workers)")

    import uvloop

    _spare_the_loop()
    # Halves what a request costs, which is most of what a site with many workers does.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_site(site_file, ready=ready))


def _spare_the_loop() -> None:
    """Let nothing else hold up the loop, which answers thousands of machines.

    The garbage collector looks at less: what was imported stays anyway, and what requests and readings leave behind is
    freed without it. At its own pace it took a fifth of the time in which thousands of machines joined, and half a
    second at once later. And a thread that works for the store gives way ten times sooner than usual.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 20)
    sys.setswitchinterval(_GIVE_WAY)


def down(
    session: Session,
    leave_workers: Annotated[
        bool, typer.Option("--leave-workers", help="Only stop the controller; workers and jobs go on.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for running jobs: they are lost. Asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds to wait at most.", show_default=False)] = None,
) -> None:
    """Close the site: start nothing more, let running jobs end, return every worker, stop the controller."""
    if leave_workers and now:
        raise WrongUsage("--leave-workers and --now contradict each other")
    if not leave_workers:
        with session.client() as client:
            _close(session, client, now=now, yes=yes, timeout=timeout)
    stopped = _stop_process(session)
    session.output.document({"closed": not leave_workers, "stopped": stopped})
    if stopped:
        session.output.show("The controller has stopped" + ("; the workers go on" if leave_workers else ""))


def _start_in_background(session: Session, site_file: Path, state: Path, timeout: float) -> str:
    service = read_service_file(state)
    if service is not None and service.alive and _healthy(service):
        session.output.note("It is running already")
        return service.url
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = state / LOG_FILE
    # The only argument that comes from outside is the site file's path, and no shell reads it.
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as sink:
        begin = sink.tell()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "gridtide.cli.main", "up", str(site_file)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    return _await_ready(session, process, state, log, begin, timeout)


def _await_ready(
    session: Session, process: subprocess.Popen[bytes], state: Path, log: Path, begin: int, timeout: float
) -> str:
    until = session.now() + timeout
    while session.now() < until:
        code = process.poll()
        if code is not None:
            raise _START_ERRORS.get(code, Failed)(f"the site did not start: {_last_line(log, begin)}", where=str(log))
        service = read_service_file(state)
        if service is not None and service.process == process.pid and _healthy(service):
            return service.url
        session.sleep(_POLL)
    raise TimedOut(
        f"the site is not ready after {timeout:g} s; it goes on trying as process {process.pid}", where=str(log)
    )


def _last_line(log: Path, begin: int) -> str:
    with log.open("rb") as source:
        source.seek(begin)
        lines = source.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("gridtide: ") if said else "it said nothing"


def _healthy(service: ServiceFile) -> bool:
    try:
        with Client(Address(service.url, None, service.ca)) as client:
            client.get("/healthz")
    except GridtideError:
        return False
    return True


def _note_process(state: Path, url: str) -> None:
    """Make sure that ``service.json`` says which process serves: `down` stops that one and no other."""
    before = read_service_file(state)
    mine = ServiceFile(
        url=url,
        ca=before.ca if before is not None else None,
        process=os.getpid(),
        started=process_started(os.getpid()),
    )
    if before != mine:
        write_service_file(state, mine)


def _close(session: Session, client: Client, *, now: bool, yes: bool, timeout: float | None) -> None:
    if now and not yes:
        ask("End every worker at once? Jobs that run on them are lost.")
    client.post("/v1/site/close")
    until = None if timeout is None else session.now() + timeout
    told = ""
    with progress(session, "Closing") as say:
        while True:
            answer = patiently(lambda: client.get("/v1/status"), patience=_PATIENCE, sleep=session.sleep)
            view = views.status(answer)
            if not view.workers:
                break
            if now:
                _end_all(client)
            if (left := _left(view)) != told:
                say(left)
                told = left
            if until is not None and session.now() >= until:
                raise TimedOut(f"{left}; the site goes on closing", remedy="`gridtide down` again waits on")
            session.sleep(_POLL)
    if waiting := (view.jobs or {}).get("waiting", 0):
        session.output.note(f"{number(waiting, 'job')} still waiting, kept for the next `gridtide up`")


def _end_all(client: Client) -> None:
    """Order every worker that is not ending already to be ended, whatever it runs."""
    rows = views.workers(client.get("/v1/workers", {"limit": MOST_WORKERS}))
    names = [row.id for row in rows if row.state is not WorkerState.TERMINATING]
    if names:
        client.post("/v1/workers/drain", {"workers": names, "force": True})


def _left(view: views.StatusView) -> str:
    shown = ", ".join(f"{count} {state}" for state, count in view.workers.items())
    running = (view.jobs or {}).get("running", 0)
    jobs = f"; {number(running, 'job')} running" if running else ""
    return f"{number(sum(view.workers.values()), 'worker')} left: {shown}{jobs}"


def _stop_process(session: Session) -> bool:
    if session.where.url is not None:
        session.output.note("The controller is not stopped: with --url it is not known which process it is")
        return False
    state = state_directory(session.where.site_file())
    service = read_service_file(state)
    if service is None or service.alive is False:
        session.output.note("No controller of this site runs on this machine")
        return False
    if service.process is None or service.alive is None:
        raise NoService("service.json does not say which process serves: stop it by hand", where=str(state))
    os.kill(service.process, signal.SIGTERM)
    until = session.now() + _STOP_LIMIT
    while service.alive:
        if session.now() >= until:
            raise TimedOut(
                f"process {service.process} has not stopped in {_STOP_LIMIT:g} s", where=str(state / LOG_FILE)
            )
        session.sleep(_POLL)
    return True

"""Files and streams on their way through the service: nothing is held in memory whole."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from gridtide.errors import Conflict, InvalidRequest, NotFound
from gridtide.pilot.protocol import JobId, JobState, Pilot
from gridtide.service import views
from gridtide.service.answers import TryLater, encode
from gridtide.service.body import save_body
from gridtide.service.settings import MIB
from gridtide.service.state import Service

T = TypeVar("T")

LOG_PIECE: Final = MIB
"""Bytes of a log in one read and, without ``follow``, in one answer."""
QUIET: Final = 15.0
"""Seconds after which an event stream sends an empty line, so that both sides notice a dead line."""


async def send_file(path: Path, name: str) -> Response:
    """A kept file, as bytes that no browser will take for a page; ranges are understood.

    NotFound when it is there no more, which would else break off the answer in its middle.
    """
    try:
        state = await asyncio.to_thread(path.stat)
    except OSError:
        raise NotFound(f"the file {name!r} is gone from the site's storage") from None
    if not stat.S_ISREG(state.st_mode):
        raise NotFound(f"{name!r} is no file")
    return FileResponse(
        path,
        headers={"x-content-type-options": "nosniff", "cache-control": "no-store"},
        media_type="application/octet-stream",
        filename=name.rpartition("/")[2],
        stat_result=state,
    )


async def receive_file(
    service: Service, request: Request, target: Path, keep: Callable[[Path], Awaitable[None]]
) -> int:
    """Stream the body to ``target``, then ``keep`` it; returns its size. The file is removed when either fails."""
    try:
        size = await save_body(
            request, target, limit=service.settings.largest_file, patience=service.settings.body_patience
        )
        await keep(target)
    except BaseException:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        raise
    return size


def checked_name(name: str) -> str:
    """A file's name inside a job's directory. InvalidRequest for one that points elsewhere."""
    parts = name.split("/")
    if not name or len(name) > 1024 or any(part in ("", ".", "..") for part in parts) or "\\" in name:
        raise InvalidRequest(f"{name[:80]!r} is no name of a file inside a job's directory")
    return name


async def while_connected(service: Service, request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, cancelled when the client goes away first: a job must not go to nobody.

    Only for requests whose body was read to its end. TryLater when the service stops, Conflict when the client has
    gone (nobody reads that).
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    service.polls.add(gone)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.cancelled():
            raise TryLater("the service is stopping", retry_after=2.0)
        raise Conflict("the client went away")
    finally:
        service.polls.discard(gone)
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _stream(service: Service, pieces: AsyncIterator[bytes], media_type: str) -> Response:
    """A followed stream, one of a bounded number. TryLater when there are too many."""
    if service.following >= service.settings.followers:
        raise TryLater(f"{service.following} streams are followed already", retry_after=30.0)

    async def counted() -> AsyncIterator[bytes]:
        service.following += 1
        try:
            async for piece in pieces:
                yield piece
        finally:
            service.following -= 1

    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return StreamingResponse(counted(), media_type=media_type, headers=headers)


def follow_log(service: Service, pilot: Pilot, job: JobId, stream: str, offset: int) -> Response:
    """The log from ``offset`` until the job has ended. A new attempt's log follows the old one's, from its start."""
    return _stream(service, _log_pieces(service, pilot, job, stream, offset), "application/octet-stream")


async def _log_pieces(service: Service, pilot: Pilot, job: JobId, stream: str, offset: int) -> AsyncIterator[bytes]:
    attempt: int | None = None
    while True:
        # The state is read before the log: once it says "ended", all of the log is there to be read.
        record = await pilot.job(job)
        if attempt is not None and record.attempt != attempt:
            offset = 0
        attempt = record.attempt
        while piece := await pilot.read_log(job, stream, offset=offset, limit=LOG_PIECE):
            offset += len(piece)
            yield piece
        if record.state not in (JobState.WAITING, JobState.RUNNING) or service.stopping:
            return
        await asyncio.sleep(service.settings.follow_interval)


def follow_events(service: Service, after: int, subject: str | None, kind: str | None) -> Response:
    """Events as they come, one JSON object a line, until the client has enough."""
    return _stream(service, _event_lines(service, after, subject, kind), "application/x-ndjson")


async def _event_lines(service: Service, after: int, subject: str | None, kind: str | None) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    spoken = loop.time()
    while not service.stopping:
        events = await service.control.store.events(after=after, subject=subject, kind=kind, limit=200)
        if events:
            after = events[-1].number
            spoken = loop.time()
            yield b"".join(encode(views.event(item)) + b"\n" for item in events)
            continue
        if loop.time() - spoken >= QUIET:
            spoken = loop.time()
            yield b"\n"
        await asyncio.sleep(service.settings.follow_interval)

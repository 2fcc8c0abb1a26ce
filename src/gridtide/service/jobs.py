"""Users' jobs: files, submissions, jobs, logs, outputs, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from gridtide.errors import AccessDenied, InvalidRequest
from gridtide.pilot.protocol import JobId, JobState, Pilot
from gridtide.service import views
from gridtide.service.answers import answer
from gridtide.service.describe import bytes_of
from gridtide.service.names import USER, Body, Digest, FileName, JobName, digest, job_id
from gridtide.service.routing import LargeBodyRoute, ThinRoute, UserRoute
from gridtide.service.state import service_of, user_of
from gridtide.service.transfer import LOG_PIECE, checked_name, follow_log, receive_file, send_file

router = APIRouter(route_class=UserRoute, tags=["jobs"])
large = APIRouter(route_class=LargeBodyRoute, tags=["jobs"])
thin = APIRouter(route_class=ThinRoute, tags=["jobs"])

MOST_FILES: Final = 10_000
"""Files in one submission or one question. More make a body above its limit anyway."""
LONGEST_DESCRIPTION: Final = 4 * 1024 * 1024
"""Characters of a job description."""
LONGEST_LIST: Final = 1000
"""Rows in one answer; the next page is asked for with ``after``."""

Limit = Annotated[int, Query(ge=1, le=LONGEST_LIST)]
UserFilter = Annotated[str | None, Query(pattern=USER)]


class Missing(Body):
    """Which of these are not stored?"""

    digests: Annotated[list[Digest], Field(max_length=MOST_FILES)]


class Submission(Body):
    """A JDL text, and the digests of the files it names."""

    description: Annotated[str, Field(min_length=1, max_length=LONGEST_DESCRIPTION)]
    files: Annotated[dict[FileName, Digest], Field(max_length=MOST_FILES, default_factory=dict)]


class Cancel(Body):
    """Some jobs, or all of a submission."""

    jobs: Annotated[list[JobName], Field(max_length=MOST_FILES, default_factory=list)]
    submission: Annotated[int | None, Field(ge=1)] = None


@thin.put("/v1/files/{digest}", status_code=201, openapi_extra=bytes_of())
async def upload(request: Request) -> Response:
    """Store an input file under its SHA-256."""
    service = service_of(request)
    wanted = digest(request.path_params["digest"])
    pilot = service.queue

    async def keep(written: Path) -> None:
        await pilot.keep_file(written, wanted)

    size = await receive_file(service, request, await pilot.file_path(), keep)
    return answer({"digest": wanted, "size": size}, 201)


@large.post("/v1/files/missing")
async def missing(request: Request, wanted: Missing) -> Response:
    """Which of these files must be uploaded before they can be used."""
    known = set(await service_of(request).queue.has_files(wanted.digests))
    return answer({"missing": [item for item in dict.fromkeys(wanted.digests) if item not in known]})


@large.post("/v1/submissions", status_code=201)
async def submit(request: Request, wanted: Submission) -> Response:
    """Make jobs of a JDL text. Nothing is made when anything in it is wrong."""
    for name in wanted.files:
        checked_name(name)
    service = service_of(request)
    made = await service.queue.submit(user_of(request).name, wanted.description, wanted.files)
    service.control.wake(f"submission {made.number}")
    return answer(views.submission(made), 201)


@router.get("/v1/submissions")
async def submissions(request: Request, user: UserFilter = None, limit: Limit = 200) -> Response:
    """Submissions, newest first."""
    found = await service_of(request).queue.submissions(user=user, limit=limit)
    return answer({"submissions": [views.submission(item) for item in found]})


@router.get("/v1/submissions/{number}")
async def submission(request: Request, number: Annotated[int, PathParameter(ge=1, lt=2**63)]) -> Response:
    """One submission with its jobs counted by state."""
    return answer(views.submission(await service_of(request).queue.submission(number)))


@router.get("/v1/jobs")
async def jobs(
    request: Request,
    submission: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    state: JobState | None = None,
    user: UserFilter = None,
    after: str | None = None,
    limit: Limit = 200,
) -> Response:
    """Jobs in order of submission and index; ``next`` is what to send as ``after`` for more, or null."""
    found = await service_of(request).queue.jobs(
        submission=submission,
        state=state,
        user=user,
        after=None if after is None else job_id(after),
        limit=limit,
    )
    return answer({"jobs": [views.job(item) for item in found], "next": found[-1].id if len(found) == limit else None})


@router.get("/v1/jobs/{job}")
async def job(request: Request, job: str) -> Response:
    """One job."""
    return answer(views.job(await service_of(request).queue.job(job_id(job))))


@router.post("/v1/jobs/cancel")
async def cancel(request: Request, wanted: Cancel) -> Response:
    """Cancel waiting and running jobs: submitters their own, operators any."""
    if bool(wanted.jobs) == (wanted.submission is not None):
        raise InvalidRequest("name either jobs or a submission", where="body")
    user = user_of(request)
    service = service_of(request)
    count = await service.queue.cancel(
        jobs=[JobId(item) for item in dict.fromkeys(wanted.jobs)],
        submission=wanted.submission,
        user=None if user.sees_all else user.name,
    )
    if count:
        service.control.wake(f"{count} jobs cancelled")
    return answer({"cancelled": count})


async def _owned(request: Request, text: str) -> tuple[Pilot, JobId]:
    """The job, when its data are the caller's to read. AccessDenied when it is another's."""
    pilot = service_of(request).queue
    user = user_of(request)
    record = await pilot.job(job_id(text))
    if record.user != user.name and not user.sees_all:
        raise AccessDenied(f"job {record.id} is another user's")
    return pilot, record.id


@router.get("/v1/jobs/{job}/log")
async def log(
    request: Request,
    job: str,
    stream: Literal["stdout", "stderr"] = "stdout",
    offset: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    follow: bool = False,
) -> Response:
    """Output of the last attempt from ``offset``: at most 1 MiB, or with ``follow`` all until the job has ended."""
    pilot, found = await _owned(request, job)
    if follow:
        return follow_log(service_of(request), pilot, found, stream, offset)
    data = await pilot.read_log(found, stream, offset=offset, limit=LOG_PIECE)
    headers = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-next-offset": str(offset + len(data)),
    }
    return Response(data, headers=headers, media_type="application/octet-stream")


@router.get("/v1/jobs/{job}/outputs")
async def outputs(request: Request, job: str) -> Response:
    """What a job left behind."""
    pilot, found = await _owned(request, job)
    return answer({"outputs": [views.output(item) for item in await pilot.outputs(found)]})


@router.get("/v1/jobs/{job}/outputs/{name:path}")
async def output(request: Request, job: str, name: str) -> Response:
    """One result's bytes. Ranges are understood."""
    pilot, found = await _owned(request, job)
    path = await pilot.open_output(found, checked_name(name))
    return await send_file(path, name)

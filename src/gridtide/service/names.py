"""Names in paths and bodies, checked before anything is asked about them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints

from gridtide.errors import InvalidRequest
from gridtide.model.ids import WorkerId
from gridtide.pilot.protocol import JobId

JOB: Final = r"^[1-9][0-9]{0,17}\.[0-9]{1,9}$"
WORKER: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DIGEST: Final = r"^[0-9a-f]{64}$"
USER: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}$"

JobName = Annotated[str, StringConstraints(pattern=JOB)]
WorkerName = Annotated[str, StringConstraints(pattern=WORKER)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST)]
UserName = Annotated[str, StringConstraints(pattern=USER)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Body(BaseModel):
    """A JSON body: unknown fields are errors, and a string is never taken for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def job_id(text: str) -> JobId:
    """``SUBMISSION.INDEX``. InvalidRequest for anything else."""
    if not is_job(text):
        raise InvalidRequest(f"{text[:40]!r} is no job", remedy="a job is called SUBMISSION.INDEX, e.g. 12.3")
    return JobId(text)


def is_job(text: str) -> bool:
    """Whether a job could be called so."""
    return re.fullmatch(JOB[1:-1], text, re.ASCII) is not None


def worker_id(text: str) -> WorkerId:
    """InvalidRequest for what no worker can be called."""
    if not re.fullmatch(WORKER[1:-1], text, re.ASCII):
        raise InvalidRequest(f"{text[:80]!r} is no worker's name")
    return WorkerId(text)


def digest(text: str) -> str:
    """A SHA-256 in hexadecimal. InvalidRequest for anything else."""
    if not re.fullmatch(DIGEST[1:-1], text, re.ASCII):
        raise InvalidRequest(f"{text[:80]!r} is no digest", remedy="64 lower-case hexadecimal digits of SHA-256")
    return text

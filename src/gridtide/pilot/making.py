"""Making jobs out of a description: one statement for a million of them."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from sqlalchemy import Connection, func, insert, select, text, update

from gridtide.pilot.description import JobDescription
from gridtide.pilot.tables import classes, submissions, usage


def class_digest(user: str, description: JobDescription) -> str:
    """Names what the scheduler sees of a job."""
    need = description.need
    seen = [user, description.priority, need.cores, need.memory, need.disk, need.gpus]
    words = json.dumps([*seen, description.requirements, description.walltime])
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


def make_submission(connection: Connection, user: str, description: JobDescription, kept: str, now: float) -> int:
    """Insert a submission with all its jobs, waiting. Returns its number."""
    class_id = _class(connection, user, description)
    last = connection.execute(
        select(submissions.c.number, submissions.c.first, submissions.c.size)
        .order_by(submissions.c.number.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    number, first = (1, 1) if last is None else (last.number + 1, last.first + last.size)
    size = description.size
    values = {"number": number, "user_name": user, "name": description.name, "submitted": now, "class_id": class_id}
    states = {"waiting": size, "running": 0, "done": 0, "failed": 0, "cancelled": 0}
    connection.execute(insert(submissions), {**values, "first": first, "size": size, "description": kept, **states})
    connection.execute(_INSERT_JOBS, {"first": first, "last": first + size - 1, "number": number, "class_id": class_id})
    connection.execute(update(classes).where(classes.c.id == class_id).values(waiting=classes.c.waiting + size))
    if connection.execute(select(usage.c.at).where(usage.c.user_name == user)).one_or_none() is None:
        row = {"user_name": user, "core_seconds": 0.0, "at": now, "running_cores": 0, "running_since": 0.0}
        connection.execute(insert(usage), row)
    return number


# The rows never pass through Python.
_INSERT_JOBS: Final = text(
    "INSERT INTO pilot_jobs (id, submission, class_id, state, attempt, losses, cancelling) "
    "WITH RECURSIVE counter(id) AS "
    "(SELECT CAST(:first AS BIGINT) UNION ALL SELECT id + 1 FROM counter WHERE id < :last) "
    "SELECT id, CAST(:number AS BIGINT), CAST(:class_id AS BIGINT), 'waiting', 0, 0, FALSE FROM counter"
)


def _class(connection: Connection, user: str, description: JobDescription) -> int:
    digest = class_digest(user, description)
    known = connection.execute(select(classes.c.id).where(classes.c.digest == digest)).scalar_one_or_none()
    if known is not None:
        return int(known)
    new = 1 + int(connection.execute(select(func.coalesce(func.max(classes.c.id), 0))).scalar_one())
    need = description.need
    values = {"id": new, "digest": digest, "user_name": user, "priority": description.priority, "waiting": 0}
    amounts = {"cores": need.cores, "memory": need.memory, "disk": need.disk, "gpus": need.gpus}
    words = {"requirements": description.requirements, "walltime": description.walltime}
    connection.execute(insert(classes), {**values, **amounts, **words})
    return new

"""Run by :mod:`gridtide.queues.slurm.commands` as a process of its own: reads Slurm's JSON as it comes, says the little
that matters.

100 000 jobs are some hundred megabytes of JSON. Here only one record at a time is in memory, and the controller gets
counts. Standard output: one line of JSON, ``{"result": ...}`` or ``{"error": TEXT}``. Exit status 0 either way; every
other status, and any other output, is a defect.

``python -m gridtide.queues.slurm.reading jobs|nodes MEBIBYTES COMMAND...``
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, Final

from gridtide.queues.slurm.jobs import Jobs, to_json
from gridtide.queues.slurm.values import Surprising

_CHUNK: Final = 1 << 20
_LONGEST: Final = 16 << 20
"""Characters of one record. No job is so large; a daemon gone mad is not read into memory."""
_SPACE: Final = " \t\r\n"
_BETWEEN: Final = _SPACE + ","

WANTED: Final = frozenset(
    {
        "name", "state", "state_flags", "features", "cpus", "effective_cpus", "real_memory", "specialized_memory",
        "alloc_cpus", "alloc_memory", "gres", "gres_used", "last_busy", "partitions", "port", "reason",
    }
)  # fmt: skip
"""Of a node's record: what :mod:`gridtide.queues.slurm.nodes` reads."""


def records(stream: IO[str], key: str) -> Iterator[dict[str, Any]]:
    """The objects of the list at ``key`` of a JSON object, one at a time; then all that is said of errors is checked.

    Surprising when it ends too early, is no JSON, lacks the list, or tells of errors.
    """
    decoder = json.JSONDecoder()
    buffer, before = _until_list(stream, key)
    place = 0
    while True:
        place = _past(buffer, place)
        if buffer[place : place + 1] == "]":
            break
        if buffer[place : place + 1] not in ("{", ""):
            raise Surprising(f"{key} holds something that is no object")
        try:
            record, place = decoder.raw_decode(buffer, place)
        except ValueError:
            more = stream.read(_CHUNK)
            if not more or len(buffer) - place > _LONGEST:
                raise Surprising("the JSON ends too early, or is none") from None
            buffer, place = buffer[place:] + more, 0
            continue
        yield record
    _check_rest(f"{before}[]{buffer[place + 1 :]}{stream.read(_LONGEST)}")


def _past(buffer: str, place: int) -> int:
    """Past white space and commas."""
    while place < len(buffer) and buffer[place] in _BETWEEN:
        place += 1
    return place


def _until_list(stream: IO[str], key: str) -> tuple[str, str]:
    """What follows ``"key": [``, and what was before it."""
    buffer = ""
    while True:
        more = stream.read(_CHUNK)
        buffer += more
        place = _after_list_key(buffer, key)
        if place is not None:
            before = buffer[: place - 1]
            return buffer[place:], before
        if not more or len(buffer) > _CHUNK:
            raise Surprising(f"there is no list of {key}" if buffer.strip() else "there is no answer at all")


def _after_list_key(buffer: str, key: str) -> int | None:
    """Only a key of the outermost object counts: the same word may be anywhere within its other values."""
    depth, place, inside = 0, 0, False
    while place < len(buffer):
        character = buffer[place]
        if inside:
            if character == "\\":
                place += 1
            elif character == '"':
                inside = False
        elif character == '"':
            if depth == 1 and buffer.startswith(f'"{key}"', place):
                rest = buffer[place + len(key) + 2 :].lstrip(_SPACE)
                if rest[:1] == ":" and rest[1:].lstrip(_SPACE)[:1] == "[":
                    return buffer.index("[", place) + 1
            inside = True
        elif character in "{[":
            depth += 1
        elif character in "}]":
            depth -= 1
        place += 1
    return None


def _check_rest(text: str) -> None:
    """The outer object without the list must be JSON, and must not tell of errors."""
    try:
        said = json.loads(text)
    except ValueError:
        raise Surprising("the JSON ends too early") from None
    for problem in said.get("errors") or ():
        told = problem.get("description") or problem.get("error") if isinstance(problem, dict) else problem
        raise Surprising(f"Slurm says: {str(told)[:200]}")


def main(arguments: list[str]) -> dict[str, Any]:
    """The one line. Never raises for what a command or Slurm does."""
    what, command = arguments[0], arguments[2:]
    memory = int(arguments[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        try:
            process = subprocess.Popen(  # noqa: S603  (from the site file, no shell)
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, errors="strict", text=True
            )
        except OSError as error:
            return {"error": f"{command[0]} cannot be run: {error.strerror}"}
        with process:
            result, problem = _understood(what, process)
            status = process.wait()
        complaints.seek(0)
        said = " ".join(complaints.read(2000).split())[:300]
    if status > 0:
        return {"error": said or f"exit status {status}"}
    if problem or status:
        ended = f"it was ended by signal {-status}; it may take {memory >> 20} MiB of memory (memory_limit)"
        return {"error": f"{problem or ended}{f' ({said})' if said else ''}"}
    return {"result": result}


def _understood(what: str, process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """What was read, or what is wrong with it."""
    stream = process.stdout
    if stream is None:
        return {}, "there is no answer at all"
    try:
        return (read_jobs(stream) if what == "jobs" else read_nodes(stream)), ""
    except ValueError as error:
        stream.close()
        process.terminate()
        return {}, str(error)


def read_jobs(stream: IO[str]) -> dict[str, Any]:
    """Counts of :class:`~gridtide.queues.slurm.jobs.Jobs`."""
    now, jobs = time.time(), Jobs()
    for record in records(stream, "jobs"):
        try:
            jobs.take(record, now)
        except ValueError as error:
            raise Surprising(f"job {str(record.get('job_id'))[:20]}: {error}") from None
    jobs.finish()
    return to_json(jobs)


def read_nodes(stream: IO[str]) -> dict[str, Any]:
    """The records, without what nobody looks at."""
    return {
        "nodes": [{key: record[key] for key in WANTED & record.keys()} for record in records(stream, "nodes")],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])) + "\n")

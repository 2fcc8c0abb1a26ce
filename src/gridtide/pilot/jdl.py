"""Job descriptions in JDL, ClassAd syntax as AliEn uses it; ``docs/reference/job-description.md`` lists all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

import classad2

from gridtide.errors import JobDescriptionError
from gridtide.model.resources import Resources
from gridtide.pilot import jdl_values as read
from gridtide.pilot.description import Axis, JobDescription
from gridtide.pilot.jdl_syntax import Statement, boolean_expression, plain_value, statements
from gridtide.pilot.matching import Host, Verdict, evaluate, job_attributes, machine_names

DEFAULT_TTL: Final = 86400.0
"""Seconds. AliEn's central services assume a day as well; shorter would end jobs that worked there."""
DEFAULT_MEMORY: Final = 1024
"""MiB. The agent ends a job that uses more, so less would hit ordinary Python; more would leave small shapes idle."""
MAXIMUM_TTL: Final = 30 * 86400.0
_MOST_MEMORY: Final = 64 * 1024 * 1024
_MOST_DISK: Final = 1024 * 1024 * 1024
_LONGEST_WORDS: Final = 64 * 1024
"""Characters of all arguments or variables together: half of what Linux takes for a single one."""
_MOST_FILES: Final = 1000

ATTRIBUTES: Final = (
    "Arguments",
    "Array",
    "Cores",
    "Disk",
    "Environment",
    "Executable",
    "Gpus",
    "InputFile",
    "JobName",
    "Memory",
    "OutputFile",
    "Priority",
    "Requirements",
    "Split",
    "StdError",
    "StdOutput",
    "Sweep",
    "TTL",
)
# What other systems call it, where the spelling alone would not lead there.
_ELSEWHERE: Final = {
    "walltime": "TTL",
    "cpucores": "Cores",
    "cpus": "Cores",
    "requestcpus": "Cores",
    "request_cpus": "Cores",
    "requestmemory": "Memory",
    "request_memory": "Memory",
    "ram": "Memory",
    "requestdisk": "Disk",
    "inputsandbox": "InputFile",
    "outputsandbox": "OutputFile",
    "transfer_input_files": "InputFile",
    "queue": "Array",
    "output": "StdOutput",
    "error": "StdError",
    "rank": "Priority",
}
_OF_JOB: Final = re.compile(r"\bMY\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)", re.IGNORECASE)
_BY_LOWER: Final = {name.lower(): name for name in ATTRIBUTES}

_Given = Mapping[str, Statement]


def parse(text: str) -> JobDescription:
    """Read a job description. JobDescriptionError names line and attribute; nothing is looked up or run."""
    given = _attributes(statements(text))
    axes = _axes(given)
    executable, inputs = _files(given)
    need = _need(given)
    words = _arguments(given, axes)
    outputs = _outputs(given, axes)
    for name in ("StdOutput", "StdError"):
        if name in given:
            read.input_name(given[name], read.text(given[name], longest=read.MAXIMUM_NAME))
    return JobDescription(
        name=read.text(given["JobName"], longest=200) if "JobName" in given else executable.rpartition("/")[2],
        executable=executable,
        arguments=words,
        environment=_environment(given, axes),
        inputs=inputs,
        outputs=outputs,
        requirements=_requirements(given, need),
        need=need,
        walltime=read.seconds(given["TTL"], most=MAXIMUM_TTL) if "TTL" in given else DEFAULT_TTL,
        priority=read.whole(given["Priority"], least=-1_000_000, most=1_000_000) if "Priority" in given else 0,
        axes=axes,
    )


def _attributes(found: Sequence[Statement]) -> _Given:
    given: dict[str, Statement] = {}
    for statement in found:
        lower = statement.name.lower()
        if lower.startswith("x_"):
            plain_value(statement)  # custom attributes are for other tools: they must be sound, and are not kept
            continue
        name = _BY_LOWER.get(lower)
        if name is None:
            raise statement.error("is not an attribute of a job", _suggestion(lower))
        if name in given:
            raise statement.error(f"is given twice, first in line {given[name].line}")
        given[name] = statement
    if "Executable" not in given:
        raise JobDescriptionError(
            "no Executable", where="line 1, Executable", remedy='add a line such as Executable = "run.sh";'
        )
    return given


def _suggestion(lower: str) -> str:
    near = _ELSEWHERE.get(lower) or next(
        (_BY_LOWER[match] for match in difflib.get_close_matches(lower, _BY_LOWER, n=1, cutoff=0.6)), None
    )
    return f"did you mean {near}?" if near else "names that begin with X_ are ignored"


def _axes(given: _Given) -> tuple[Axis, ...]:
    if "Array" in given and "Split" in given:
        raise given["Split"].error("cannot be combined with Array")
    axes = read.sweep(given["Sweep"]) if "Sweep" in given else ()
    if "Array" in given:
        axes += (read.array(given["Array"]),)
    if "Split" in given:
        axes += (read.split(given["Split"]),)
    jobs = 1
    for axis in axes:
        jobs *= axis.count
    if jobs > read.MAXIMUM_JOBS:
        raise given["Sweep"].error(f"makes {jobs} jobs, {read.MAXIMUM_JOBS} are the most", "submit it in several parts")
    return axes


def _files(given: _Given) -> tuple[str, tuple[str, ...]]:
    statement = given["Executable"]
    executable = read.text(statement, longest=4096)
    inputs: list[str] = []
    if executable.startswith("/"):
        if "/../" in f"{executable}/" or executable.endswith("/"):
            raise statement.error(f"{executable[:60]!r} is not the path of a program")
    else:
        executable = read.input_name(statement, executable)
        inputs.append(executable)
    if "InputFile" in given:
        statement = given["InputFile"]
        for entry in read.strings(statement, most=_MOST_FILES, longest=_LONGEST_WORDS):
            name = read.input_name(statement, entry)
            if name in inputs[1:] or (name in inputs and name != executable):
                raise statement.error(f"names the file {name!r} twice")
            if name not in inputs:
                inputs.append(name)
        for name in inputs:
            if any(parent.as_posix() in inputs for parent in PurePosixPath(name).parents):
                raise statement.error(f"names {name!r}, but also a file where its directory would be")
    return executable, tuple(inputs)


def _arguments(given: _Given, axes: Sequence[Axis]) -> tuple[str, ...]:
    if "Arguments" not in given:
        return ()
    statement = given["Arguments"]
    return read.with_placeholders(statement, read.arguments(statement, longest=_LONGEST_WORDS), axes)


def _environment(given: _Given, axes: Sequence[Axis]) -> tuple[tuple[str, str], ...]:
    if "Environment" not in given:
        return ()
    statement = given["Environment"]
    pairs = read.environment(statement, longest=_LONGEST_WORDS)
    words = read.with_placeholders(statement, [word for _, word in pairs], axes)
    return tuple((name, word) for (name, _), word in zip(pairs, words, strict=True))


def _outputs(given: _Given, axes: Sequence[Axis]) -> tuple[str, ...]:
    if "OutputFile" not in given:
        return ()
    statement = given["OutputFile"]
    entries = read.with_placeholders(statement, read.strings(statement, most=_MOST_FILES, longest=_LONGEST_WORDS), axes)
    names = tuple(read.output_name(statement, entry, axes) for entry in entries)
    if len(set(names)) != len(names):
        raise statement.error("names a file twice")
    return names


def _need(given: _Given) -> Resources:
    return Resources(
        cores=read.whole(given["Cores"], least=1, most=10_000) if "Cores" in given else 1,
        memory=read.mebibytes(given["Memory"], least=1, most=_MOST_MEMORY) if "Memory" in given else DEFAULT_MEMORY,
        disk=read.mebibytes(given["Disk"], least=0, most=_MOST_DISK) if "Disk" in given else 0,
        gpus=read.whole(given["Gpus"], least=0, most=1000) if "Gpus" in given else 0,
    )


def _requirements(given: _Given, need: Resources) -> str:
    if "Requirements" not in given:
        return "true"
    statement = given["Requirements"]
    expression = boolean_expression(statement)
    known = {name.lower(): name for name in job_attributes(need)}
    for match in _OF_JOB.finditer(statement.masked):
        if match[1].lower() not in known:
            raise statement.error(f"a job has no attribute MY.{match[1]}", f"known: {', '.join(known.values())}")
    if machine_names(need, classad2.ExprTree(expression)):
        return expression
    # It asks nothing of the machine: either it always holds, or no machine can ever run the job.
    if evaluate(expression, need, Host({})) is not Verdict.YES:
        raise statement.error("does not refer to the machine and does not hold, so that no machine could run the job")
    return "true"

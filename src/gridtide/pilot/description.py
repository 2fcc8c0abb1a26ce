"""A parsed job description: one for a whole submission, from which each job's own words are made by its index."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gridtide.model.resources import Resources
from gridtide.pilot.protocol import Assignment, InputFile, JobId

PLACEHOLDER: Final = re.compile(r"\$(?P<escaped>\$)\(|\$\((?P<name>[A-Za-z_][A-Za-z0-9_]*)\)")
INDEX: Final = "index"


@dataclass(frozen=True, slots=True)
class Axis:
    """One placeholder and the values it takes: ``count`` whole numbers from ``first``, or ``values``."""

    name: str
    count: int
    first: int = 0
    values: tuple[str, ...] = ()

    def value(self, position: int) -> str:
        """What stands at ``position`` (from 0)."""
        return self.values[position] if self.values else str(self.first + position)


@dataclass(frozen=True, slots=True)
class JobDescription:
    """What a JDL text says, with every default filled in. Text may hold placeholders ``$(name)``."""

    name: str
    executable: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    """Names of the files that the submitter must provide, the executable included when it is one of them."""
    outputs: tuple[str, ...]
    requirements: str
    """A ClassAd expression; ``true`` when there is none."""
    need: Resources
    walltime: float
    """Seconds."""
    priority: int
    axes: tuple[Axis, ...]
    """The last one runs fastest. Empty: one job."""

    @property
    def size(self) -> int:
        """How many jobs it makes."""
        size = 1
        for axis in self.axes:
            size *= axis.count
        return size

    def placeholders(self, index: int) -> Mapping[str, str]:
        """The values of the job at ``index`` (from 0)."""
        values = {INDEX: str(index)}
        rest = index
        for axis in reversed(self.axes):
            rest, position = divmod(rest, axis.count)
            values[axis.name] = axis.value(position)
        return values

    def assignment(self, job: JobId, index: int, attempt: int, inputs: tuple[InputFile, ...]) -> Assignment:
        """The words of one attempt."""
        values = self.placeholders(index)
        return Assignment(
            job=job,
            attempt=attempt,
            executable=self.executable,
            arguments=tuple(fill(text, values) for text in self.arguments),
            environment={name: fill(text, values) for name, text in self.environment},
            inputs=inputs,
            outputs=self.outputs_of(index),
            cores=self.need.cores,
            memory=self.need.memory,
            walltime=self.walltime,
        )

    def outputs_of(self, index: int) -> tuple[str, ...]:
        """The declared outputs of the job at ``index``."""
        values = self.placeholders(index)
        return tuple(fill(text, values) for text in self.outputs)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(name)``; ``$$(`` stands for ``$(``."""
    if "$" not in text:
        return text
    return PLACEHOLDER.sub(lambda match: "$(" if match["escaped"] else values[match["name"]], text)


def to_json(description: JobDescription, inputs: tuple[InputFile, ...]) -> str:
    """How a submission is kept."""
    need = description.need
    return json.dumps(
        {
            "name": description.name,
            "executable": description.executable,
            "arguments": description.arguments,
            "environment": description.environment,
            "inputs": [[file.name, file.digest, file.size, file.executable] for file in inputs],
            "outputs": description.outputs,
            "requirements": description.requirements,
            "need": [need.cores, need.memory, need.disk, need.gpus],
            "walltime": description.walltime,
            "priority": description.priority,
            "axes": [[axis.name, axis.count, axis.first, axis.values] for axis in description.axes],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def from_json(text: str) -> tuple[JobDescription, tuple[InputFile, ...]]:
    """The way back."""
    kept: dict[str, Any] = json.loads(text)
    inputs = tuple(InputFile(*entry) for entry in kept["inputs"])
    description = JobDescription(
        name=kept["name"],
        executable=kept["executable"],
        arguments=tuple(kept["arguments"]),
        environment=tuple((name, value) for name, value in kept["environment"]),
        inputs=tuple(file.name for file in inputs),
        outputs=tuple(kept["outputs"]),
        requirements=kept["requirements"],
        need=Resources(*kept["need"]),
        walltime=kept["walltime"],
        priority=kept["priority"],
        axes=tuple(Axis(name, count, first, tuple(values)) for name, count, first, values in kept["axes"]),
    )
    return description, inputs

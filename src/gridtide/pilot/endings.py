"""What becomes of a job whose attempt has ended, and the sentence that says why. Pure."""

from __future__ import annotations

import fnmatch
import re
import signal as signals
from collections.abc import Collection, Sequence
from typing import Final

from gridtide.pilot.protocol import AttemptEnd, EndCause, JobState

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONGEST_TEXT: Final = 300


def clean(text: str) -> str:
    """A stranger's words as one line of bounded length."""
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 3]}..."


def figure(value: float) -> float:
    """A stranger's number of seconds: finite and not negative."""
    return value if 0.0 <= value < 1e15 else 0.0


def missing_outputs(declared: Sequence[str], kept: Collection[str]) -> list[str]:
    """Declared names and patterns that no kept file answers to."""
    return [pattern for pattern in declared if not any(_answers(pattern, name) for name in kept)]


def is_declared(declared: Sequence[str], name: str) -> bool:
    """Whether a file may be kept as an output."""
    return any(_answers(pattern, name) for pattern in declared)


def _answers(pattern: str, name: str) -> bool:
    """As the shell does it: case counts, and ``*`` does not reach over a slash."""
    patterns, names = pattern.split("/"), name.split("/")
    return name == pattern or (len(patterns) == len(names) and all(map(fnmatch.fnmatchcase, names, patterns)))


def outcome(
    end: AttemptEnd, *, cancelling: bool, memory: int, walltime: float, missing: Sequence[str]
) -> tuple[JobState, str] | None:
    """State and reason of the job. None: the attempt counts as lost, for nobody asked its worker to end it.

    A cancelled job that ends by itself before the order reaches it keeps its own end.
    """
    said = f": {clean(end.text)}" if clean(end.text) else ""
    if end.cause is EndCause.CANCELLED:
        return (JobState.CANCELLED, "cancelled while it ran") if cancelling else None
    if end.cause is EndCause.WALLTIME:
        return JobState.FAILED, f"ran longer than its TTL of {walltime:g} s and was ended"
    if end.cause is EndCause.MEMORY:
        return (
            JobState.FAILED,
            f"used {max(end.peak_memory, 0)} MiB of memory, more than its {memory} MiB, and was ended",
        )
    if end.cause is EndCause.NOT_STARTED:
        return JobState.FAILED, f"could not be started{said}"
    if end.exit_code is None:
        return JobState.FAILED, f"was ended by {_signal(end.signal)}{said}"
    if end.exit_code != 0:
        return JobState.FAILED, f"ended with exit code {end.exit_code}{said}"
    if missing or end.cause is EndCause.OUTPUT_MISSING:
        names = ", ".join(missing)
        return JobState.FAILED, f"ended with exit code 0 but did not leave {clean(names) or 'a declared output'}"
    return JobState.DONE, "ended with exit code 0, results kept"


def _signal(number: int | None) -> str:
    if number is None:
        return "an unknown signal"
    try:
        return f"signal {number} ({signals.Signals(number).name})"
    except ValueError:
        return f"signal {number}"

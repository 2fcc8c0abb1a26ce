"""Exit codes: the one table. docs/reference/exit-codes.md explains each; a test keeps the two together."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from gridtide.cli.problems import Busy, Failed, NoService, ServiceFault, TimedOut, WrongUsage
from gridtide.errors import (
    AccessDenied,
    Conflict,
    ContextError,
    GridtideError,
    ImageError,
    InvalidRequest,
    JobDescriptionError,
    LeaseLost,
    NotFound,
    SiteFileError,
    SourceError,
    StoreUnavailable,
)


class ExitCode(IntEnum):
    """What a script may rely on. Numbers never change their meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DESCRIPTION = 3
    NO_SERVICE = 4
    REFUSED = 5
    NOT_FOUND = 6
    CONFLICT = 7
    INVALID = 8
    UNAVAILABLE = 9
    TIMED_OUT = 10
    INTERNAL = 70
    INTERRUPTED = 130


_CODES: Final[tuple[tuple[type[GridtideError], ExitCode], ...]] = (
    (Failed, ExitCode.FAILED),
    (WrongUsage, ExitCode.USAGE),
    (SiteFileError, ExitCode.DESCRIPTION),
    (JobDescriptionError, ExitCode.DESCRIPTION),
    (NoService, ExitCode.NO_SERVICE),
    (AccessDenied, ExitCode.REFUSED),
    (NotFound, ExitCode.NOT_FOUND),
    (Conflict, ExitCode.CONFLICT),
    (LeaseLost, ExitCode.CONFLICT),
    (InvalidRequest, ExitCode.INVALID),
    (Busy, ExitCode.UNAVAILABLE),
    (StoreUnavailable, ExitCode.UNAVAILABLE),
    (SourceError, ExitCode.UNAVAILABLE),
    (ImageError, ExitCode.FAILED),
    (ContextError, ExitCode.DESCRIPTION),
    (ServiceFault, ExitCode.INTERNAL),
    (TimedOut, ExitCode.TIMED_OUT),
)


def exit_code(error: GridtideError) -> ExitCode:
    """The code for an error; INTERNAL for one that has no row of its own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.INTERNAL)

"""The one barrier before code of packages from elsewhere: whatever it raises becomes one kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gridtide.errors import GridtideError, PlugInError

T = TypeVar("T")

_LONGEST = 300
"""Characters of a foreign error that are passed on."""


def call_plug_in(call: Callable[[], T]) -> T:
    """What it returns. GridtideErrors pass; PlugInError for everything else that it raises."""
    try:
        return call()
    except GridtideError:
        raise
    except Exception as error:  # not our code: it may raise anything
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise PlugInError(words[:_LONGEST]) from error

"""Values of Slurm's JSON, strictly read. Its shape changed with the years:

- a number is plain (22.05: ``"job_id": 3``; null or left out for "not set") or a table (23.02 and later:
  ``{"set": true, "infinite": false, "number": 3}``);
- a state is one word in whatever case with a list of flags beside it (22.05), or a list of words (23.02 and later).

Nothing but these two is understood: whatever else is there raises :class:`Surprising`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

Record = Mapping[str, Any]
"""One job or node as ``json.loads`` made it: nothing is known of it yet."""

UNSET: Final = frozenset({0xFFFFFFFE, 0xFFFFFFFFFFFFFFFE, 0xFFFE})
"""Slurm's NO_VAL (slurm.h), which some versions let through in place of null."""
INFINITE: Final = frozenset({0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0xFFFF})


class Surprising(ValueError):
    """The JSON is not what any known version of Slurm writes."""


def number(record: Record, key: str) -> float | None:
    """None when it is not set or not there; ``math.inf`` when it is without limit."""
    value = record.get(key)
    if isinstance(value, dict):
        if set(value) != {"set", "infinite", "number"}:
            raise Surprising(f"{key} is {_shown(value)}, not a number")
        if value["infinite"] is True:
            return math.inf
        if value["set"] is not True:
            return None
        value = value["number"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Surprising(f"{key} is {_shown(value)}, not a number")
    if value in UNSET:
        return None
    return math.inf if value in INFINITE else value


def whole(record: Record, key: str, otherwise: int = 0) -> int:
    """A whole number from 0; ``otherwise`` when it is not set."""
    value = number(record, key)
    if value is None:
        return otherwise
    if value < 0 or not math.isfinite(value) or value != int(value):
        raise Surprising(f"{key} is {value}, not a whole number")
    return int(value)


def needed(record: Record, key: str) -> int:
    """A whole number that must be there."""
    if key not in record or number(record, key) is None:
        raise Surprising(f"{key} is missing")
    return whole(record, key)


def text(record: Record, key: str) -> str:
    """Empty when it is null or not there."""
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Surprising(f"{key} is {_shown(value)}, not text")
    return value


def name(record: Record, key: str) -> str:
    """Text that must be there."""
    value = text(record, key)
    if not value:
        raise Surprising(f"{key} is missing")
    return value


def words(record: Record, *keys: str) -> frozenset[str]:
    """All words of these keys in capital letters: each holds one word, a list of them, or nothing. The first must be
    there."""
    found: set[str] = set()
    if keys[0] not in record:
        raise Surprising(f"{keys[0]} is missing")
    for key in keys:
        value = record.get(key)
        listed = [value] if isinstance(value, str) else value if value is not None else []
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise Surprising(f"{key} is {_shown(value)}, not a list of words")
        found.update(word.upper() for word in listed if word)
    return frozenset(found)


def names(record: Record, key: str) -> tuple[str, ...]:
    """A list of names, or one text with commas between them; empty when it is not there."""
    value = record.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part for part in value.split(",") if part)
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise Surprising(f"{key} is {_shown(value)}, not a list of names")
    return tuple(value)


def _shown(value: object) -> str:
    return repr(value)[:60]

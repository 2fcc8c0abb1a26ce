"""Durations and sizes, always written with their unit: ``"5 min"``, ``"2 GiB"``.

A bare number is refused: 300 of what? Parsing is exact (no floating point before the last step), so that what is
written is what is meant.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Final, get_args

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from gridtide.site.hints import listing, suggestion

SECONDS: Final = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "day": Fraction(86_400),
    "days": Fraction(86_400),
}
"""Seconds in each unit of time."""

BYTES: Final = {
    **{f"{prefix}iB": Fraction(1024**power) for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}B": Fraction(1000**power) for power, prefix in enumerate("kMGT", start=1)},
}
"""Bytes in each unit of size: powers of 1024 and of 1000."""

# Spellings that people bring along from elsewhere, and what they mean here.
_USUAL: Final = {
    "m": "min", "minute": "min", "minutes": "min", "mins": "min", "sec": "s", "secs": "s", "second": "s",
    "seconds": "s", "hr": "h", "hour": "h", "hours": "h", "d": "day", "msec": "ms", "millisecond": "ms",
    "milliseconds": "ms", "k": "KiB", "g": "GiB", "t": "TiB", "kb": "kB", "mb": "MB", "gb": "GB", "tb": "TB",
    "kib": "KiB", "mib": "MiB", "gib": "GiB", "tib": "TiB",
}  # fmt: skip

# Longer than any run of a site: a duration above it is a mistake, and sums of durations stay exact as floats.
LONGEST: Final = Fraction(3650 * 86_400)
# 1 EiB in MiB. Above it the sum over a fleet could leave the integers that databases hold.
LARGEST: Final = 1024**4

_WRITTEN: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", re.ASCII)


def wrong(what: str, right: str) -> PydanticCustomError:
    """A validator's error: what is wrong, and what would be right. Both become part of one line."""
    return PydanticCustomError("gridtide", "{what}", {"what": what, "right": right})


def parse_duration(value: object) -> float:
    """Seconds. PydanticCustomError when it is not a number with a unit of time."""
    amount = _amount(value, SECONDS, "a duration", ("5 min", "s"))
    if amount > LONGEST:
        raise wrong(f"{str(value)!r} is longer than ten years", 'for example "5 min"')
    return float(amount)


def parse_size(value: object) -> int:
    """MiB, rounded up. PydanticCustomError when it is not a number with a unit of size."""
    amount = _amount(value, BYTES, "a size", ("2 GiB", "MiB"))
    mebibytes = -(-amount // (1024 * 1024))
    if mebibytes > LARGEST:
        raise wrong(f"{str(value)!r} is larger than any machine", 'for example "2 GiB"')
    return mebibytes


def _amount(value: object, units: dict[str, Fraction], noun: str, example: tuple[str, str]) -> Fraction:
    """``value`` in seconds or bytes. ``example``: a whole value, and the unit that a bare number most likely meant."""
    whole, unit_of_bare = example
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong(f"must be {noun} with its unit", f'for example "{whole}"')
    written = _WRITTEN.fullmatch(str(value))
    if written is None:
        raise wrong(f"{_short(str(value))} is not {noun}", f'a number and a unit, for example "{whole}"')
    number, unit = written.groups()
    if not unit:
        raise wrong(f"{_short(str(value))} has no unit", f'write "{number} {unit_of_bare}" if that is meant')
    if unit not in units:
        usual = _USUAL.get(unit.lower())
        if noun == "a size" and unit in {"M", "m"}:
            usual = "MiB"
        right = f'write "{number} {usual}"' if usual in units else suggestion(unit, units)
        raise wrong(f"{unit!r} is not a unit of {noun[2:]}", f"{right}; units: {listing(list(units))}")
    return Fraction(number) * units[unit]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def show_duration(seconds: float) -> str:
    """The shortest exact way to write it: ``300.0`` -> ``"5 min"``."""
    if seconds == 0:
        return "0 s"
    amount = Fraction(str(seconds))
    for unit in ("day", "h", "min", "s", "ms"):
        if (count := amount / SECONDS[unit]).denominator == 1:
            return f"{count} {'days' if unit == 'day' and count > 1 else unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + " s"


def show_size(mebibytes: int) -> str:
    """The shortest exact way to write it: ``2048`` -> ``"2 GiB"``."""
    for power, unit in ((2, "TiB"), (1, "GiB")):
        if mebibytes and mebibytes % 1024**power == 0:
            return f"{mebibytes // 1024**power} {unit}"
    return f"{mebibytes} MiB"


def _at_least(shortest: str) -> AfterValidator:
    least = parse_duration(shortest)

    def check(seconds: float) -> float:
        if seconds < least:
            raise wrong(f"{show_duration(seconds)} is too short", f'at least "{shortest}"')
        return seconds

    return AfterValidator(check)


def _not_zero(mebibytes: int) -> int:
    if mebibytes == 0:
        raise wrong("a machine without any of it cannot run", 'for example "2 GiB"')
    return mebibytes


def _text_schema(kind: str, units: dict[str, Fraction]) -> WithJsonSchema:
    pattern = rf"^\s*[0-9]{{1,15}}(\.[0-9]{{1,9}})?\s*({'|'.join(units)})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "x-unit": kind})


Duration = Annotated[float, BeforeValidator(parse_duration), _text_schema("duration", SECONDS)]
"""Written with a unit of time; seconds in the code. May be zero."""

Moment = Annotated[Duration, _at_least("1 ms")]
"""A duration of at least a millisecond: zero would make a loop spin."""

Period = Annotated[Duration, _at_least("1 s")]
"""A duration of at least a second: less would flood a peer, or give up on a healthy one."""

Size = Annotated[int, BeforeValidator(parse_size), _text_schema("size", BYTES)]
"""Written with a unit of size; MiB, rounded up, in the code. May be zero."""

PositiveSize = Annotated[Size, AfterValidator(_not_zero)]
"""A size above zero."""


def unit_of(field: FieldInfo) -> str:
    """``duration`` or ``size`` when a model's field is written with a unit, otherwise nothing."""
    inner = [note for one in get_args(field.annotation) for note in getattr(one, "__metadata__", ())]
    for note in (*field.metadata, *inner):
        if isinstance(note, WithJsonSchema) and note.json_schema is not None and "x-unit" in note.json_schema:
            return str(note.json_schema["x-unit"])
    return ""

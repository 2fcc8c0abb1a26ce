"""Reading one attribute's value: durations, sizes, names, lists; and the axes of arrays and sweeps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from gridtide.pilot.description import INDEX, PLACEHOLDER, Axis
from gridtide.pilot.jdl_syntax import Statement, Value, nested, plain_value

MAXIMUM_JOBS: Final = 1_000_000
"""Jobs of one submission. All are inserted in one transaction: more would hold up every other write for long."""
MAXIMUM_NAME: Final = 255
"""Bytes of one part of a file name, the limit of Linux file systems."""
MAXIMUM_PATH: Final = 1024
"""Characters of a relative path: leaves Linux's 4096 bytes room for the directories above."""
RESERVED: Final = ".gridtide"
"""How our own temporary files begin."""
MAXIMUM_VALUES: Final = 100_000
"""Values of one sweep axis, which are kept as they are written."""

_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z]+)")
_SECONDS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "week": 604800.0}
_MEBIBYTES: Final = {
    "mib": 1.0,
    "gib": 1024.0,
    "tib": 1024.0**2,
    "mb": 1e6 / 2**20,
    "gb": 1e9 / 2**20,
    "tb": 1e12 / 2**20,
}
_RANGE: Final = re.compile(r"([0-9]{1,12})\s*-\s*([0-9]{1,12})")
_SPLIT: Final = re.compile(r"production:([0-9]{1,12})-([0-9]{1,12})")
_COUNTER: Final = re.compile(r"#alien_counter#")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def text(statement: Statement, *, longest: int) -> str:
    """A line of text that is not empty."""
    value = plain_value(statement)
    if not isinstance(value, str) or not value.strip():
        raise statement.error("must be a text in double quotes")
    if len(value) > longest:
        raise statement.error(f"has {len(value)} characters, {longest} are the most")
    if _CONTROL.search(value):
        raise statement.error("holds a control character")
    return value


def whole(statement: Statement, *, least: int, most: int) -> int:
    """A whole number within limits."""
    value = plain_value(statement)
    if isinstance(value, bool) or not isinstance(value, int):
        raise statement.error("must be a whole number")
    if not least <= value <= most:
        raise statement.error(f"is {value}, but must lie between {least} and {most}")
    return value


def seconds(statement: Statement, *, most: float) -> float:
    """A duration: a number of seconds, or a text with a unit."""
    amount = _amount(statement, _SECONDS, 'a number of seconds or a text such as "2 h"')
    if not 1 <= amount <= most:
        raise statement.error(f"is {amount:g} s, but must lie between 1 s and {most:g} s")
    return amount


def mebibytes(statement: Statement, *, least: int, most: int) -> int:
    """A size: a number of MiB, or a text with a unit; rounded up to whole MiB."""
    amount = _amount(statement, _MEBIBYTES, 'a number of MiB or a text such as "2 GiB"')
    size = -int(-amount // 1)
    if not least <= size <= most:
        raise statement.error(f"is {size} MiB, but must lie between {least} and {most} MiB")
    return size


def _amount(statement: Statement, units: Mapping[str, float], form: str) -> float:
    value = plain_value(statement)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value.strip())
        factor = units.get(match[2].lower()) if match else None
        if match is not None and factor is not None:
            return float(match[1]) * factor
    raise statement.error(f"must be {form}", f"units: {', '.join(units)}")


def strings(statement: Statement, *, most: int, longest: int) -> tuple[str, ...]:
    """A list of texts; one text stands for a list of one."""
    value = plain_value(statement)
    entries = [value] if isinstance(value, str) else value
    if isinstance(entries, dict) or not isinstance(entries, Sequence):
        raise statement.error('must be a list of texts such as {"a", "b"}')
    return _texts(statement, entries, most=most, longest=longest)


def _texts(statement: Statement, entries: Sequence[Value], *, most: int, longest: int) -> tuple[str, ...]:
    if len(entries) > most:
        raise statement.error(f"has {len(entries)} entries, {most} are the most")
    result: list[str] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise statement.error("has an entry that is not a text in double quotes")
        if "\0" in entry:
            raise statement.error("holds a NUL character")
        result.append(entry)
    if sum(map(len, result)) > longest:
        raise statement.error(f"is longer than {longest} characters", "put data into an input file")
    return tuple(result)


def arguments(statement: Statement, *, longest: int) -> tuple[str, ...]:
    """A list as it is, or one text cut into words as a POSIX shell would cut it. No shell runs, nothing is expanded."""
    value = plain_value(statement)
    if not isinstance(value, str):
        return strings(statement, most=10_000, longest=longest)
    (line,) = _texts(statement, [value], most=1, longest=longest)
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise statement.error("has a quotation mark that is not closed", "or give a list of texts") from error


def environment(statement: Statement, *, longest: int) -> tuple[tuple[str, str], ...]:
    """A nested ad ``[ A = "x"; N = 3 ]`` or a list ``{"A=x", "N=3"}``."""
    ad = nested(statement)
    if ad is not None:
        pairs = [(entry.name, _word(statement, plain_value(entry))) for entry in ad]
    else:
        cut = [entry.partition("=") for entry in strings(statement, most=1000, longest=longest)]
        if any(not equals for _, equals, _ in cut):
            raise statement.error('has an entry that is not of the form "NAME=value"')
        pairs = [(name, rest) for name, _, rest in cut]
    for name, _ in pairs:
        if not _VARIABLE.fullmatch(name):
            raise statement.error(f"{name[:40]!r} is not the name of a variable")
    if len({name for name, _ in pairs}) != len(pairs):
        raise statement.error("names a variable twice")
    _texts(statement, [word for _, word in pairs], most=1000, longest=longest)
    return tuple(pairs)


def _word(statement: Statement, value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise statement.error("has a value that is not a text, number or truth value")


def why_not_file_name(name: str) -> str | None:
    """What is wrong with the name of a file in a job's directory, None when it is good.

    A good name is relative, without ``.`` and ``..``, and cannot leave the directory on any system it passes through.
    """
    parts = name.split("/")
    if name.startswith("/"):
        return "is absolute; names are relative to the job's directory"
    if any(part in ("", ".", "..") for part in parts):
        return "is not the plain name of a file in the job's directory"
    if "\\" in name or _CONTROL.search(name):
        return "holds a backslash or a control character"
    if any(part.startswith(RESERVED) for part in parts):
        return f"begins with {RESERVED!r}, which is reserved"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if longest > MAXIMUM_NAME or len(name) > MAXIMUM_PATH:
        return f"is too long: {MAXIMUM_NAME} bytes for each part and {MAXIMUM_PATH} characters in all are the most"
    return None


def input_name(statement: Statement, entry: str) -> str:
    """The name of an input in the job's directory. AliEn's ``LF:/catalogue/path/name`` stands for ``name``."""
    name = entry.rpartition("/")[2] if entry.startswith("LF:/") else entry.removeprefix("LF:")
    wrong = why_not_file_name(name)
    if wrong is not None:
        raise statement.error(f"the file name {name[:60]!r} {wrong}")
    return name


def output_name(statement: Statement, entry: str, axes: Sequence[Axis]) -> str:
    """A relative name or shell pattern, whatever its placeholders become."""
    for match in PLACEHOLDER.finditer(entry):
        for axis in axes:
            if axis.name == match["name"] and any(
                "/" in word or "\\" in word or word.startswith(".") for word in axis.values
            ):
                raise statement.error(f"$({axis.name}) has values that cannot be part of a file name")
    shortest = PLACEHOLDER.sub("0", entry)
    wrong = why_not_file_name(shortest)
    if wrong is not None:
        raise statement.error(f"the file name {entry[:60]!r} {wrong}")
    return entry


def array(statement: Statement) -> Axis:
    """``1000`` (indices 0 to 999) or ``"5-10"``."""
    value = plain_value(statement)
    if isinstance(value, int) and not isinstance(value, bool):
        first, last = 0, value - 1
    elif isinstance(value, str) and (match := _RANGE.fullmatch(value.strip())):
        first, last = int(match[1]), int(match[2])
    else:
        raise statement.error('must be a number of jobs or a range such as "0-999"')
    return _indices(statement, first, last)


def split(statement: Statement) -> Axis:
    """AliEn's ``production:1-1000``."""
    value = plain_value(statement)
    match = _SPLIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise statement.error('only "production:FIRST-LAST" is known')
    return _indices(statement, int(match[1]), int(match[2]))


def _indices(statement: Statement, first: int, last: int) -> Axis:
    if last < first:
        raise statement.error("makes no job at all")
    if last - first + 1 > MAXIMUM_JOBS:
        raise statement.error(
            f"makes {last - first + 1} jobs, {MAXIMUM_JOBS} are the most", "submit it in several parts"
        )
    return Axis(INDEX, last - first + 1, first)


def sweep(statement: Statement) -> tuple[Axis, ...]:
    """``[ seed = {1, 2}; energy = {"low", "high"} ]``: one job for each combination, the last name runs fastest."""
    ad = nested(statement)
    if not ad:
        raise statement.error("must be an ad of lists such as [ seed = {1, 2, 3} ]")
    return tuple(_swept(entry) for entry in ad)


def _swept(entry: Statement) -> Axis:
    values = plain_value(entry)
    if isinstance(values, str | dict) or not isinstance(values, Sequence) or not values:
        raise entry.error("must be a list that is not empty")
    if len(values) > MAXIMUM_VALUES:
        raise entry.error(f"has {len(values)} values, {MAXIMUM_VALUES} are the most", "use Array")
    if entry.name.lower() == INDEX:
        raise entry.error("$(index) is the job's number and cannot be swept", "use another name, or Array")
    words = tuple(_word(entry, value) for value in values)
    if any(_CONTROL.search(word) for word in words):
        raise entry.error("holds a control character")
    return Axis(entry.name, len(words), values=words)


def with_placeholders(statement: Statement, words: Sequence[str], axes: Sequence[Axis]) -> tuple[str, ...]:
    """AliEn's counter in our spelling; placeholders that nothing fills are an error."""
    known = {INDEX, *(axis.name for axis in axes)}
    result = tuple(_COUNTER.sub(f"$({INDEX})", word) for word in words)
    for word in result:
        for match in PLACEHOLDER.finditer(word):
            if match["name"] is not None and match["name"] not in known:
                raise statement.error(
                    f"nothing gives $({match['name']}) a value",
                    f"known: {', '.join(f'$({name})' for name in sorted(known))}; write $$( for a literal $(",
                )
    return result

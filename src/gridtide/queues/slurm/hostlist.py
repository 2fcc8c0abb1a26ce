"""Slurm's short forms: lists of hosts (``node[1-3,7],gpu2``) and of array tasks (``1-99:2,120%5``)."""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 100_000
"""Hosts in one list. Without a limit, ``n[1-999999999]`` from a confused daemon would fill the memory."""

_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")
_TASKS: Final = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


def expand(text: str) -> tuple[str, ...]:
    """The hosts in their order. ValueError for what is no list of hosts."""
    hosts: list[str] = []
    for item in _items(text):
        hosts += _expand_one(item, MOST - len(hosts))
    return tuple(hosts)


def _items(text: str) -> list[str]:
    """Split at the commas that are outside of brackets."""
    items, depth, begin = [], 0, 0
    for place, character in enumerate(text):
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif character == "," and depth == 0:
            items.append(text[begin:place])
            begin = place + 1
        if depth not in (0, 1):
            raise ValueError(f"{text[:60]!r} is no list of hosts")
    if depth or not text.strip():
        raise ValueError(f"{text[:60]!r} is no list of hosts")
    return [*items, text[begin:]]


def _expand_one(item: str, room: int) -> list[str]:
    before, bracket, rest = item.partition("[")
    if not bracket:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", item) or room < 1:
            raise ValueError(f"{item[:60]!r} is no host")
        return [item]
    inside, _, after = rest.partition("]")
    found: list[str] = []
    for part in inside.split(","):
        numbers = _RANGE.fullmatch(part)
        if numbers is None:
            raise ValueError(f"{item[:60]!r} is no list of hosts")
        first, last = numbers[1], numbers[2] or numbers[1]
        if not 0 <= int(last) - int(first) < room - len(found):
            raise ValueError(f"{item[:60]!r} is no list of hosts, or one of too many")
        found += [f"{before}{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    if not after:
        return found
    tails = _expand_one(f"x{after}", MOST)
    if len(found) * len(tails) > room:
        raise ValueError(f"{item[:60]!r} is a list of too many hosts")
    return [f"{head}{tail[1:]}" for head in found for tail in tails]


def count_tasks(text: str) -> tuple[int, int | None]:
    """How many tasks an array's list names, and how many may run at a time (None: any number).

    A list that Slurm cut short ("...") counts for what it still names: at least one. ValueError for what is no list.
    """
    tasks, percent, limit = text.partition("%")
    if percent and not limit.isdigit():
        raise ValueError(f"{text[:60]!r} is no list of array tasks")
    count = 0
    for part in tasks.removesuffix("...").rstrip(",").split(","):
        numbers = _TASKS.fullmatch(part)
        if numbers is None:
            raise ValueError(f"{text[:60]!r} is no list of array tasks")
        first, last, step = int(numbers[1]), int(numbers[2] or numbers[1]), int(numbers[3] or 1)
        if last < first or step < 1:
            raise ValueError(f"{text[:60]!r} is no list of array tasks")
        count += (last - first) // step + 1
    return count, int(limit) if percent and int(limit) else None

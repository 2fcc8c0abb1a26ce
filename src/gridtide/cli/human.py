"""Figures as people say them. Pure: the present time is a parameter."""

from __future__ import annotations

from datetime import UTC, datetime

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_JUST_NOW = 2.0
"""Seconds below which an age is "just now": smaller ones would only flicker in a live table."""


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``2 h 5 min``, ``4 d 1 h``: two units at most."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def ago(when: float | None, now: float) -> str:
    """``3 min ago``, ``just now``, ``in 20 s``; a dash when there is no time."""
    if when is None:
        return "-"
    age = now - when
    if abs(age) < _JUST_NOW:
        return "just now"
    unit, name = next(((unit, name) for unit, name in _STEPS if abs(age) >= unit), (1.0, "s"))
    text = f"{int(abs(age) // unit)} {name}"
    return f"{text} ago" if age > 0 else f"in {text}"


def clock_time(when: float, now: float) -> str:
    """Local time of day; with the date when that is another day."""
    moment, present = (datetime.fromtimestamp(at, UTC).astimezone() for at in (when, now))
    return moment.strftime("%H:%M:%S" if moment.date() == present.date() else "%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """``0 B``, ``999 B``, ``1.0 KiB``, ``2.5 GiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("the loop always returns")


def number(count: int, noun: str) -> str:
    """``1 worker``, ``3 workers``, ``2 000 jobs``."""
    return f"{count:,}".replace(",", " ") + f" {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """One line that cannot steer a terminal: control and formatting characters are shown as ``\\x1b`` and the like.

    Names of jobs and texts of clouds come from others.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )

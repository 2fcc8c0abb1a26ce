"""Other figures at other hours: windows that begin by cron, in a time zone (pure: they are computed from ``now``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim

from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SchedulePolicy, Window
from gridtide.planning.policies.base import Aim, Outlook, Policy

_MINUTE: Final = 60.0
_REMEMBERED: Final = 1024
"""Moments of which the last and the next beginning of a window are kept: it is asked for in every cycle."""


@lru_cache(maxsize=_REMEMBERED)
def beginnings(begins: str, zone: str, minute: int) -> tuple[float | None, float | None]:
    """The last beginning up to this minute (of those since 1970), and the next one after it. None: there is none.

    Clocks that are put forward or back are dealt with as cron does it: what falls into the hour that is left out begins
    right after it; what falls into the hour that comes twice begins once.
    """
    here = UTC if zone == "UTC" else ZoneInfo(zone)
    # A beginning at the very minute is found from the minute after it.
    after = datetime.fromtimestamp((minute + 1) * _MINUTE, UTC).astimezone(here)
    at = datetime.fromtimestamp(minute * _MINUTE, UTC).astimezone(here)
    last = next(CronSim(begins, after, reverse=True), None)
    coming = next(CronSim(begins, at), None)
    return (None if last is None else last.timestamp(), None if coming is None else coming.timestamp())


@dataclass(frozen=True, slots=True)
class Opening:
    """A window at one moment."""

    window: Window
    until: float | None
    """When it closes; None while it is closed."""
    changes: float | None
    """When it opens, closes or begins anew next; None: never."""


def opening(window: Window, zone: str, now: float) -> Opening:
    """Whether the window is open, and until when."""
    last, coming = beginnings(window.begins, zone, int(now // _MINUTE))
    if last is not None and last <= now < last + window.lasts:
        end = last + window.lasts
        return Opening(window, end, end if coming is None else min(end, coming))
    return Opening(window, None, coming)


@dataclass(frozen=True, slots=True)
class FollowSchedule:
    """What another policy wants, within the figures of the hour."""

    parameters: SchedulePolicy
    follow: Policy

    def aim(self, outlook: Outlook) -> Aim:
        """Of several open windows the one that is written last counts, figure by figure."""
        parameters = self.parameters
        openings = [opening(window, parameters.zone, outlook.now) for window in parameters.windows]
        open_ones = [each for each in openings if each.until is not None]
        figures = {"minimum": None, "maximum": None, "desired": None, "warm": None} | dict(_figures(open_ones))
        changes = [each.changes for each in openings if each.changes is not None]
        maximum = outlook.maximum if figures["maximum"] is None else min(figures["maximum"], outlook.maximum)
        warm = parameters.warm if figures["warm"] is None else figures["warm"]
        minimum = outlook.minimum if figures["minimum"] is None else figures["minimum"]
        minimum = min(max(minimum, outlook.busy + warm if warm else 0), maximum)
        aim = self.follow.aim(replace(outlook, minimum=minimum, maximum=maximum))
        changes += [aim.look_again] if aim.look_again is not None else []
        desired = figures["desired"]
        why = Reason(Cause.SCHEDULED, _words(open_ones, warm)) if open_ones or warm else None
        return replace(
            aim,
            count=aim.count if desired is None else desired,
            idle_only=aim.idle_only and desired is None,
            patience=aim.patience if desired is None else why,
            minimum=minimum,
            maximum=maximum,
            why=why if desired is not None or aim.why is None else aim.why,
            look_again=min((each for each in changes if each > outlook.now), default=None),
        )


def _figures(open_ones: list[Opening]) -> Iterator[tuple[str, int]]:
    for each in open_ones:
        window = each.window
        for name in ("minimum", "maximum", "desired", "warm"):
            figure: int | None = getattr(window, name)
            if figure is not None:
                yield name, figure


def _words(open_ones: list[Opening], warm: int) -> str:
    until = [f"the window {each.window.begins!r} is open until {_clock(each.until)}" for each in open_ones]
    return "; ".join([*until, *([f"{warm} more than run jobs are kept ready"] if warm else [])])


def _clock(moment: float | None) -> str:
    return "" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"

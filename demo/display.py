"""What a person sees while the demo runs: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
STATES = {
    "on the way": ("intended", "launching", "booting"),
    "at work": ("joined",),
    "leaving": ("draining", "drained", "failed", "terminating"),
}
"""Row of the picture -> states of workers that it counts."""
STYLES = {"on the way": "yellow", "at work": "green", "leaving": "cyan"}
QUIET = 2.0
"""Seconds between two plain lines."""


def sparkline(values: Sequence[int], top: int, width: int) -> str:
    """Values as bars of full height ``top``; of a long row each column shows the highest of its part."""
    if not values:
        return ""
    columns = min(width, len(values))
    parts = [values[len(values) * at // columns : len(values) * (at + 1) // columns] for at in range(columns)]
    steps = len(BLOCKS) - 1
    # Rounded up, so that one worker of many is seen.
    return "".join(BLOCKS[min(steps, -(-max(part) * steps // max(top, 1)))] for part in parts)


@dataclass(frozen=True)
class Look:
    """The site at one moment."""

    jobs: Mapping[str, int]
    workers: Mapping[str, int]
    events: Sequence[str] = ()
    machines: int | None = None
    """That the clouds list as ours; None when that is not known."""
    troubles: Sequence[str] = ()
    """Sources that could not be read, with why."""

    @property
    def total(self) -> int:
        """Jobs of any state."""
        return sum(self.jobs.values())

    @property
    def ended(self) -> int:
        """Jobs that have ended, well or not."""
        return self.total - self.jobs.get("waiting", 0) - self.jobs.get("running", 0)

    def count(self, row: str) -> int:
        """Workers in the states of a row."""
        return sum(self.workers.get(state, 0) for state in STATES[row])

    @property
    def line(self) -> str:
        """All in one line."""
        jobs = ", ".join(f"{count} {state}" for state, count in self.jobs.items() if count)
        workers = ", ".join(f"{count} {state}" for state, count in self.workers.items() if count)
        return f"jobs: {jobs or 'none'}; workers: {workers or 'none'}"

    @property
    def whole(self) -> str:
        """The line, and what is in the way."""
        return "; ".join((self.line, *self.troubles))


@dataclass
class Display:
    """Takes looks and shows them. A context manager; nothing is drawn outside of it."""

    top: int
    """The most workers that there can be."""
    begin: float = field(default_factory=time.monotonic)
    history: list[Look] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(highlight=False, emoji=False))
    _live: Live | None = None
    _told: str = ""
    _told_at: float = float("-inf")

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def note(self, text: str) -> None:
        """A step of the demo, which stays on the screen."""
        self.console.print(Text(f"{self.elapsed:5.1f} s  {text}"), soft_wrap=True)
        sys.stdout.flush()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begin

    def show(self, look: Look) -> None:
        """The newest look."""
        self.history.append(look)
        if self._live is not None:
            self._live.update(self.picture(look), refresh=True)
        elif look.whole != self._told and self.elapsed - self._told_at >= QUIET:
            self._told, self._told_at = look.whole, self.elapsed
            self.note(look.whole)

    def picture(self, look: Look) -> Group:
        """Jobs as a bar, workers by state over time, and the last events."""
        total, ended = look.total, look.ended
        rows = Table.grid(padding=(0, 2))
        rows.add_row("jobs", ProgressBar(max(total, 1), ended, width=40), f"{ended} of {total} ended")
        rows.add_row("queue", self._bar("waiting", total), f"{look.jobs.get('waiting', 0)} waiting")
        for row in STATES:
            rows.add_row(row, self._workers(row), f"{look.count(row)} workers")
        troubles = [Text(f"  {text}", style="red", no_wrap=True, overflow="ellipsis") for text in look.troubles]
        events = [Text(f"  {text}", style="dim", no_wrap=True, overflow="ellipsis") for text in look.events]
        return Group(Text(f"{self.elapsed:5.1f} s", style="bold"), rows, *troubles, *events)

    def timeline(self, width: int = 60) -> str:
        """How many workers were at work, from the first look to the last."""
        return sparkline([look.count("at work") for look in self.history], self.top, width)

    def _bar(self, state: str, top: int) -> Text:
        return Text(sparkline([look.jobs.get(state, 0) for look in self.history], top, 40), style="blue")

    def _workers(self, row: str) -> Text:
        return Text(sparkline([look.count(row) for look in self.history], self.top, 40), style=STYLES[row])

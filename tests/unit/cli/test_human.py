"""Figures as people say them, and output for people and programs."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.cli import human
from gridtide.cli.output import Output, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (599, "9 min 59 s"),
        (600, "10 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (90_000, "1 d 1 h"),
        (-61, "-1 min 1 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0, "just now"),
        (1.9, "just now"),
        (2, "2 s ago"),
        (59, "59 s ago"),
        (180, "3 min ago"),
        (7300, "2 h ago"),
        (200_000, "2 d ago"),
        (-30, "in 30 s"),
        (-1, "just now"),
    ],
)
def test_ago(age: float, text: str) -> None:
    assert human.ago(1000.0 - age, 1000.0) == text


def test_no_time_is_a_dash() -> None:
    assert human.ago(None, 0.0) == "-"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2_684_354_560, "2.5 GiB"), (2**52, "4096.0 TiB")],
)
def test_size(count: int, text: str) -> None:
    assert human.size(count) == text


def test_number() -> None:
    assert (human.number(1, "job"), human.number(0, "job"), human.number(12345, "job")) == (
        "1 job",
        "0 jobs",
        "12 345 jobs",
    )


def test_another_day_is_told_with_its_date() -> None:
    assert len(human.clock_time(1_700_000_000.0, 1_700_000_001.0)) == 8
    assert len(human.clock_time(1_600_000_000.0, 1_700_000_000.0)) == 19


@given(st.text())
def test_nothing_printable_steers_a_terminal(text: str) -> None:
    shown = human.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_has_at_most_two_units(seconds: float) -> None:
    assert len(human.duration(seconds).split()) in (2, 4)


def test_no_colour_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.text import Text

    Output().show(Text("red", style="red"))
    assert capsys.readouterr().out == "red\n"


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_colour_on_a_terminal_unless_unwanted(monkeypatch: pytest.MonkeyPatch, no_colour: str, coloured: bool) -> None:
    from rich.text import Text

    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_colour)
    Output().show(Text("red", style="red"))
    assert ("\x1b[31m" in stream.getvalue()) is coloured


def test_a_long_cell_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    Output().show(table(("name", "why"), [("漢字" * 20, "w" * 300)]))
    out = capsys.readouterr().out
    assert "漢字" * 20 in out
    assert "w" * 300 in out


def test_half_a_surrogate_pair_does_not_break_json(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).document({"name": "\udcff"})
    assert r"\udcff" in capsys.readouterr().out

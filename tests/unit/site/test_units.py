"""Durations and sizes."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from gridtide.site.units import (
    BYTES,
    LARGEST,
    LONGEST,
    SECONDS,
    parse_duration,
    parse_size,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5 min", 300.0),
        ("90 s", 90.0),
        ("2 h", 7200.0),
        ("1 day", 86_400.0),
        ("2 days", 172_800.0),
        ("500 ms", 0.5),
        ("1.5 h", 5400.0),
        ("0 s", 0.0),
        ("5min", 300.0),
        (" 5  min ", 300.0),
        ("0.1 s", 0.1),
        ("3650 days", 315_360_000.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("2 GiB", 2048),
        ("512 MiB", 512),
        ("2 GB", 1908),  # 1907.35 rounded up: never less than what was asked for
        ("1 kB", 1),
        ("1 KiB", 1),
        ("1024 KiB", 1),
        ("1025 KiB", 2),
        ("1.5 GiB", 1536),
        ("1 TiB", 1024**2),
        ("0 MiB", 0),
        ("4GiB", 4096),
    ],
)
def test_sizes(text: str, mebibytes: int) -> None:
    assert parse_size(text) == mebibytes


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (300, '"300 s"'),
        (0.5, '"0.5 s"'),
        ("300", '"300 s"'),
        ("5m", '"5 min"'),
        ("5 minutes", '"5 min"'),
        ("5 M", '"5 min"'),
        ("5 sec", '"5 s"'),
        ("1 d", '"1 day"'),
        ("1 hr", '"1 h"'),
        ("5 mn", "did you mean 'min'?"),
        ("5 parsecs", "units: ms, s, min, h, day, days"),
        ("-5 s", '"5 min"'),
        ("5 s 3 min", '"5 min"'),
        ("1e3 s", '"5 min"'),
        ("nan s", '"5 min"'),
        ("٥ s", '"5 min"'),
        ("", '"5 min"'),
        ("s", '"5 min"'),
        (True, '"5 min"'),
        (None, '"5 min"'),
        (float("inf"), '"5 min"'),
        ([5], '"5 min"'),
        ("9" * 16 + " s", '"5 min"'),
        ("3651 days", "ten years"),
        ("2 GiB", "units: ms"),
    ],
)
def test_what_is_no_duration_is_told_what_would_be(value: object, right: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_duration(value)
    assert right in str(caught.value.context)


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (2, '"2 MiB"'),
        ("2G", '"2 GiB"'),
        ("2 gb", '"2 GB"'),
        ("2 M", '"2 MiB"'),
        ("2 m", '"2 MiB"'),
        ("2 Gib", '"2 GiB"'),
        ("2 PiB", "units: KiB, MiB, GiB, TiB, kB"),
        ("5 min", "units: KiB"),
        ("-2 GiB", '"2 GiB"'),
        (False, '"2 GiB"'),
        ("1048577 TiB", "larger than any machine"),
    ],
)
def test_what_is_no_size_is_told_what_would_be(value: object, right: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_size(value)
    assert right in str(caught.value.context)


amounts = st.decimals(min_value=0, max_value=10**6, places=3, allow_nan=False).map(lambda one: f"{one:f}")


@given(amounts, st.sampled_from(sorted(SECONDS)), st.sampled_from(["", " ", "  "]))
def test_a_duration_is_its_number_times_its_unit(number: str, unit: str, blank: str) -> None:
    exact = Fraction(number) * SECONDS[unit]
    if exact > LONGEST:
        with pytest.raises(PydanticCustomError):
            parse_duration(f"{number}{blank}{unit}")
    else:
        assert parse_duration(f"{number}{blank}{unit}") == float(exact)


@given(amounts, st.sampled_from(sorted(BYTES)))
def test_a_size_is_never_less_than_what_is_written_and_less_than_one_mebibyte_more(number: str, unit: str) -> None:
    exact = Fraction(number) * BYTES[unit] / 1024**2
    if exact > LARGEST:
        with pytest.raises(PydanticCustomError):
            parse_size(f"{number} {unit}")
    else:
        assert 0 <= parse_size(f"{number} {unit}") - exact < 1


@given(st.integers(0, 315_360_000_000))
def test_a_duration_that_is_shown_reads_back(milliseconds: int) -> None:
    assert parse_duration(show_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.floats(0, float(LONGEST)))
def test_any_duration_can_be_shown(seconds: float) -> None:
    assert parse_duration(show_duration(seconds)) == pytest.approx(seconds, abs=1e-9, rel=1e-12)


@given(st.integers(0, LARGEST))
def test_a_size_that_is_shown_reads_back(mebibytes: int) -> None:
    assert parse_size(show_size(mebibytes)) == mebibytes


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_nothing_but_its_own_error_leaves_a_parser(value: object) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(PydanticCustomError):
            assert parse(value) >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(300.0, "5 min"), (90.0, "90 s"), (0.0, "0 s"), (0.05, "50 ms"), (86_400.0, "1 day"), (172_800.0, "2 days")],
)
def test_the_shortest_way_to_write_a_duration(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(("mebibytes", "text"), [(2048, "2 GiB"), (0, "0 MiB"), (1500, "1500 MiB"), (1024**2, "1 TiB")])
def test_the_shortest_way_to_write_a_size(mebibytes: int, text: str) -> None:
    assert show_size(mebibytes) == text

"""What a Retry-After header is taken for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.clouds.refusals import LONGEST_WAIT, wait_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("1764430000", LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", None),
        ("Wed, 21 Oct 9999 07:28:00 GMT", LONGEST_WAIT),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_WAIT),
    ],
)
def test_headers(header: str, expected: float | None) -> None:
    assert wait_of(header) == expected


def test_a_date_to_come() -> None:
    in_a_minute = wait_of(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True))
    assert in_a_minute is not None
    assert 55.0 < in_a_minute <= 60.0


@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,30} Nov [0-9]{1,30} [0-9:]{1,9} [-+][0-9]{1,30}", fullmatch=True)
)
def test_nonsense_neither_raises_nor_waits_for_ever(header: str) -> None:
    wait = wait_of(header)
    assert wait is None or 0.0 <= wait <= LONGEST_WAIT

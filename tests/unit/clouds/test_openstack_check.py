"""How long credentials last."""

from datetime import UTC, datetime

import pytest

from gridtide.clouds.openstack_check import lasting
from gridtide.clouds.protocol import Level

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ends", "level", "words"),
    [
        (None, Level.OK, "it does not expire"),
        ("2026-11-29T11:59:59.000000Z", Level.WARNING, "2026-11-29 at 11:59 UTC"),
        ("2026-11-29T12:00:01.000000", Level.OK, "2026-11-29 at 12:00 UTC"),
        ("2026-11-20T00:00:00", Level.WARNING, "2026-11-20"),
        ("2027-11-20T00:00:00Z", Level.OK, "2027-11-20"),
    ],
)
def test_credentials_that_expire_within_eight_days_are_warned_of(ends: str | None, level: Level, words: str) -> None:
    finding = lasting("an application credential", ends, NOW)
    assert finding.level is level
    assert words in finding.text
    assert bool(finding.remedy) is (level is Level.WARNING)

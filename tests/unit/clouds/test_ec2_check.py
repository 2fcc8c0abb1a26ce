"""What is said of credentials: never any part of them."""

from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, RefreshableCredentials

from gridtide.clouds.ec2_check import credentials
from gridtide.clouds.protocol import Level

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
SECRET = "do-not-show-this"


def expiring(method: str, left: timedelta) -> RefreshableCredentials:
    return RefreshableCredentials(
        SECRET, SECRET, SECRET, NOW + left, refresh_using=dict, method=method, time_fetcher=lambda: NOW
    )


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (None, Level.ERROR, "boto3 finds none"),
        (Credentials(SECRET, SECRET, method="shared-credentials-file"), Level.OK, "do not expire"),
        (Credentials(SECRET, SECRET, SECRET, method="env"), Level.WARNING, "temporary"),
        (expiring("env", timedelta(days=7, hours=23)), Level.WARNING, "expire on 2026-11-29 at 07:00 UTC"),
        (expiring("env", timedelta(days=8, hours=1)), Level.OK, "expire on 2026-11-29 at 09:00 UTC"),
        (expiring("iam-role", timedelta(hours=1)), Level.OK, "renew themselves"),
        (expiring("assume-role", timedelta(hours=1)), Level.OK, "renew themselves"),
    ],
)
def test_credentials_that_end_soon_are_warned_of(found: Credentials | None, level: Level, words: str) -> None:
    finding = credentials(found, NOW)
    assert finding.level is level
    assert words in finding.text
    assert bool(finding.remedy) is (level is not Level.OK)
    assert SECRET not in repr(finding)

"""What holds for all tests: no verdict depends on how fast the machine is, nor on the tests before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _logs_of_its_own() -> Iterator[None]:
    """What one test made of the log is not the next one's."""
    yield
    structlog.reset_defaults()

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.opennebula.server import OpenNebula, serve
from tests.real.opennebula.tenant import Tenant


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    """Of an OpenNebula of its own."""
    nebula = OpenNebula()
    with serve(nebula) as address:
        yield Tenant(nebula, address, tmp_path)

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.openstack.control_plane import control_plane
from tests.real.openstack.project import Project, User, new_project


@pytest.fixture(scope="session")
def plane() -> Iterator[str]:
    """The address of a control plane."""
    with control_plane() as address:
        yield address


@pytest.fixture(scope="session")
def administrator(plane: str) -> Iterator[User]:
    """Of the cloud."""
    user = User(plane, "admin", "admin")
    yield user
    user.close()


@pytest.fixture
def project(administrator: User, tmp_path: Path) -> Iterator[Project]:
    """A new one, without servers."""
    made = new_project(administrator, tmp_path)
    yield made
    made.remove()
    made.owner.close()

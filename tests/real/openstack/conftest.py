from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.openstack.control_plane import control_plane
from tests.real.openstack.project import Project, User, new_project


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five services on a host that is busy with other tests: how long they take is not what is looked at. Still less
    than the minute that the suite for cloud drivers waits for an error."""
    monkeypatch.setattr("gridtide.clouds.openstack.READ_PATIENCE", 50.0)
    monkeypatch.setattr("gridtide.clouds.openstack.LAUNCH_PATIENCE", 50.0)


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

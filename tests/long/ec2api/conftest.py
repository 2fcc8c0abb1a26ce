"""A tenant of ec2-api for each test, as it is and completed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.long.ec2api.endpoint import Tenant, ec2_api, new_tenant
from tests.real.openstack.conftest import administrator, plane
from tests.real.openstack.project import User

__all__ = ["administrator", "plane"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five services on one host: how long they take is not what is looked at. The suite waits for a minute."""
    monkeypatch.setattr("gridtide.clouds.ec2.READ_PATIENCE", 50.0)


@pytest.fixture(scope="session")
def completed(plane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that does what EC2 promises."""
    with ec2_api(plane, tmp_path_factory.mktemp("completed"), completed=True) as address:
        yield address


@pytest.fixture(scope="session")
def plain(plane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one as it comes."""
    with ec2_api(plane, tmp_path_factory.mktemp("plain"), completed=False) as address:
        yield address


def _tenant(address: str, administrator: User, directory: Path) -> Iterator[Tenant]:
    made = new_tenant(address, administrator, directory)
    yield made
    made.project.remove()
    made.project.owner.close()


@pytest.fixture
def tenant(completed: str, administrator: User, tmp_path: Path) -> Iterator[Tenant]:
    """Without machines."""
    yield from _tenant(completed, administrator, tmp_path)


@pytest.fixture
def plain_tenant(plain: str, administrator: User, tmp_path: Path) -> Iterator[Tenant]:
    """Of the endpoint as it comes."""
    yield from _tenant(plain, administrator, tmp_path)

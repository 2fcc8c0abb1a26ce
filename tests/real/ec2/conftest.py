from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.ec2.account import Account, moto


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """moto's address."""
    with moto() as address:
        yield address


@pytest.fixture
def account(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Empty. Nothing of the host's own AWS configuration is seen."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = Account(server, tmp_path)
    made.empty()
    return made

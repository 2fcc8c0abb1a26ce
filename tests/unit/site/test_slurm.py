"""``[queues.NAME]`` with ``type = "slurm"``."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from gridtide.errors import SiteFileError
from gridtide.site.loader import load, problems
from gridtide.site.slurm import SlurmQueueSettings

from .conftest import Write
from .texts import QUEUE, with_group


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "munge.key").write_bytes(b"k")
    return str(tmp_path / "munge.key")


def settings(key: str, *controllers: str, **more: object) -> SlurmQueueSettings:
    values = {"type": "slurm", "controllers": controllers, "munge_key": key, **more}
    return SlurmQueueSettings.model_validate(values)


def test_controllers_get_slurms_own_port(key: str) -> None:
    assert settings(key, "head.example.org", "10.1.2.3:7000").controllers == ("head.example.org:6817", "10.1.2.3:7000")


@pytest.mark.parametrize("controller", ["", "a b", "head:", "head:0", "head:99999", "-x", "head:6817,b", "::1"])
def test_what_is_no_controller(key: str, controller: str) -> None:
    with pytest.raises(ValidationError):
        settings(key, controller)


def test_one_controller_at_least(key: str) -> None:
    with pytest.raises(ValidationError):
        settings(key)


@pytest.mark.parametrize(
    ("controller", "loopback"),
    [("127.78.1.2", "127.78.1.2"), ("127.0.0.1:7000", "127.0.0.1"), ("10.1.2.3", ""), ("head", ""), ("localhost", "")],
)
def test_a_controller_that_only_this_host_can_call(key: str, controller: str, loopback: str) -> None:
    assert settings(key, controller).loopback() == loopback


@pytest.mark.parametrize("marker", ["", "a,b", "a&b", "1a", "a b", "x" * 41])
def test_what_can_be_no_feature(key: str, marker: str) -> None:
    with pytest.raises(ValidationError):
        settings(key, "head", marker=marker)


def test_the_key_must_be_there() -> None:
    with pytest.raises(ValidationError, match="there is no file"):
        settings("/nowhere/munge.key", "head")


def test_single_use_workers_are_refused_before_one_is_launched(write: Write, key: str) -> None:
    queue = f'[queues.jobs]\ntype = "slurm"\ncontrollers = ["head"]\nmunge_key = "{key}"\n'
    path = write(with_group('policy = { type = "per_job" }').replace(QUEUE, queue))
    with pytest.raises(SiteFileError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}:13:")
    assert "groups.workers.policy.type" in line
    assert '"per_job" cannot be: a node of slurm' in line
    assert line.endswith('("queue")')
    assert len(problems(path)) == 1
    path.write_text(path.read_text().replace("per_job", "queue"))
    assert problems(path) == []


def test_other_queues_take_single_use_workers(write: Write) -> None:
    assert problems(write(with_group('policy = { type = "per_job" }'))) == []

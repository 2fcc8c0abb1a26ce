"""``[queues.NAME]`` with ``type = "htcondor"``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gridtide.errors import QueueError
from gridtide.queues.htcondor.access import numeric
from gridtide.site.htcondor import HTCondorQueueSettings


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "gridtide"
    path.write_bytes(b"0123456789abcdef")
    return str(path)


def read(key: str, **more: Any) -> HTCondorQueueSettings:
    given = {"type": "htcondor", "collector": "cm.example.org", "signing_key": key, **more}
    return HTCondorQueueSettings.model_validate(given)


def test_the_port_and_the_trust_domain_may_be_left_out(key: str) -> None:
    plain = read(key)
    assert (plain.collector, plain.domain(), plain.port_range()) == ("cm.example.org:9618", "cm.example.org", None)
    full = read(key, collector="192.0.2.1:9700", trust_domain="example.org", ports="9700-9799")
    assert (full.collector, full.domain(), full.port_range()) == ("192.0.2.1:9700", "example.org", (9700, 9799))


@pytest.mark.parametrize(
    "wrong",
    [
        {"collector": "cm example"},
        {"collector": "cm:0"},
        {"collector": "cm:70000"},
        {"ports": "9700"},
        {"ports": "9800-9700"},
        {"ports": "80-90"},
        {"slots": "dynamic"},
        {"configuration": ["START"]},
        {"configuration": ["A = 1\nB = 2"]},
        {"start": ""},
        {"signing_key": "/does/not/exist"},
        {"attributes": {"Cpus": 4}},
        {"colour": "red"},
    ],
)
def test_what_is_wrong_is_told(key: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        read(key, **wrong)


def test_an_expression_over_several_lines_becomes_one(key: str) -> None:
    assert read(key, start="A &&\n  B").start == "A && B"
    assert read(key, configuration=["use FEATURE : GPUs", "A = 1"]).configuration == ("use FEATURE : GPUs", "A = 1")


def test_workers_are_given_addresses() -> None:
    assert numeric("192.0.2.1:9618") == "192.0.2.1:9618"
    assert numeric("localhost:9618") == "127.0.0.1:9618"
    with pytest.raises(QueueError, match="no address"):
        numeric("no-such-name.invalid:9618")

"""What of the site file decides how machines are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.site.drivers import PilotQueueSettings
from gridtide.site.loader import load
from gridtide.telling import tellings

SITE = """
[site]
name = "torino"

[queues.jobs]
type = "pilot"

[clouds.local]
type = "process"
shapes = { slot = { cores = 1, memory = "256 MiB", disk = "1 GiB" } }

[groups.workers]
queue = "jobs"
clouds = ["local"]
maximum = 1
policy = { type = "queue" }
"""


@pytest.mark.parametrize("privileged", [True, False])
def test_the_queue_says_whether_agents_must_be_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, privileged: bool
) -> None:
    monkeypatch.setattr(PilotQueueSettings, "privileged", privileged)
    (tmp_path / "site.toml").write_text(SITE)
    (told,) = tellings(load(tmp_path / "site.toml"), "http://127.0.0.1:8470", None).values()
    assert told.settings.privileged is privileged

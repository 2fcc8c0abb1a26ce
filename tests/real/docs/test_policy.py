"""The page on policies of one's own, followed literally."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.real.docs.packages import files_of, install


def run(command: list[str], directory: Path, environment: dict[str, str]) -> str:
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_policy_works_as_it_is_written(tmp_path: Path) -> None:
    files = files_of("write-a-policy.md")
    directory = tmp_path / "crowd"
    environment = install(files, directory)
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_crowd.py"], directory, environment)
    found = json.loads(run(["gridtide", "check", "site.toml", "--json"], directory, environment))["findings"]
    texts = [each["text"] for each in found if each["subject"] == "plug-in"]
    assert texts == ["policy type 'crowd' is of gridtide-crowd 1.0"]
    assert "CrowdSettings" in run(["gridtide", "schema"], directory, environment)
    wrong = directory / "wrong.toml"
    wrong.write_text(files["site.toml"].replace("size", "seize"))
    refused = subprocess.run(
        ["gridtide", "check", str(wrong)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert refused.returncode != 0
    assert "groups.workers.policy.seize: unknown key" in refused.stdout + refused.stderr

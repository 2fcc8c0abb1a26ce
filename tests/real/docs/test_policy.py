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


def claim_a_type_of_gridtide(installed: Path) -> None:
    """As a package would whose authors did not look."""
    about = installed / "claims-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: claims\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text("[gridtide.policy_settings]\nqueue = gridtide_crowd:CrowdSettings\n")


def test_the_policy_works_as_it_is_written(tmp_path: Path) -> None:
    files = files_of("write-a-policy.md")
    directory = tmp_path / "crowd"
    environment = install(files, directory)
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_crowd.py"], directory, environment)
    claim_a_type_of_gridtide(directory / "installed")
    found = json.loads(run(["gridtide", "check", "site.toml", "--json"], directory, environment))["findings"]
    texts = [each["text"] for each in found if each["subject"] == "plug-in"]
    assert texts == [
        "policy type 'crowd' is of gridtide-crowd 1.0",
        "policy type 'queue' of claims 2.0 is hidden by Gridtide's own",
    ]
    assert "CrowdSettings" in run(["gridtide", "schema"], directory, environment)
    wrong = directory / "wrong.toml"
    wrong.write_text(files["site.toml"].replace("size", "seize"))
    refused = subprocess.run(
        ["gridtide", "check", str(wrong)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert refused.returncode != 0
    assert "groups.workers.policy.seize: unknown key" in refused.stdout + refused.stderr

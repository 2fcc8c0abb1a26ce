"""The tutorial, followed literally."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    job = re.search(r"Write `hello.jdl`:\n\n```\n(.*?)```", text, re.S)
    assert job is not None
    (tmp_path / "hello.jdl").write_text(job[1])
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    assert commands[0].startswith("gridtide init")
    assert commands[-1] == "gridtide down"
    said: dict[str, str] = {}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}
    try:
        for command in commands:
            if command.startswith("gridtide init"):
                subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)  # noqa: S602
                site = tmp_path / "site.toml"
                site.write_text(
                    site.read_text().replace("127.0.0.1:8470", "127.0.0.1:0")
                )  # other tests run beside this
                continue
            ended = subprocess.run(  # noqa: S602
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
            assert ended.returncode == 0, f"{command}: {ended.stderr}"
            said[command] = ended.stdout
    finally:
        subprocess.run("gridtide down --now --yes", shell=True, cwd=tmp_path, env=environment, capture_output=True)  # noqa: S602
    assert "12 of 12 jobs ended: 12 done" in said["gridtide submit hello.jdl --wait"]
    assert said["gridtide logs 1.7"] == "I am 1.7, number 7\n"
    assert "launch" in said["gridtide events"]

"""The unit that starts the agent where systemd is the first program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import gridtide.guest
from tests.real.engines import need

UNIT = Path(gridtide.guest.__file__).parent / "gridtide-agent@.service"


@pytest.mark.parametrize("user", ["gridtide", "root"])
def test_systemd_understands_the_unit(tmp_path: Path, user: str) -> None:
    need({"systemd-analyze": "systemd"})
    unit = tmp_path / f"gridtide-agent@{user}.service"
    unit.write_text(UNIT.read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("code", "status", "ends"),
    [
        *[("exited", "0", True), ("exited", "1", True), ("exited", "2", True), ("exited", "70", False)],
        *[("killed", "KILL", False), ("dumped", "ABRT", False), ("exited", "20", False)],
    ],
)
def test_the_machine_is_powered_off_when_the_agent_left_and_only_then(
    tmp_path: Path, code: str, status: str, ends: bool
) -> None:
    (line,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStopPost=")]
    command = line.partition("'")[2].rstrip("'").replace("$$", "$")
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "systemctl").chmod(0o700)
    environment = {"PATH": str(tmp_path), "EXIT_CODE": code, "EXIT_STATUS": status}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ("--no-block poweroff\n" if ends else "")

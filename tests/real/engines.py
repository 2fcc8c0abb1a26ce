"""Debian packages that real tests need: installed by the tests themselves where they may, once per machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_LOCK = Path("/tmp/gridtide-tests-apt.lock")


def need(programs: Mapping[str, str]) -> None:
    """Have these programs (program -> package). Skips only where nobody may install packages."""
    if not _missing(programs):
        return
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = _missing(programs)
        if missing and os.geteuid() == 0 and shutil.which("apt-get"):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            packages = sorted({programs[program] for program in missing})
            for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
                subprocess.run(["apt-get", *command], env=environment, capture_output=True, timeout=900, check=False)
    missing = _missing(programs)
    if missing and os.geteuid() != 0:
        pytest.skip(f"only root can install {', '.join(sorted(missing))} here")
    assert not missing, f"could not be installed: {', '.join(sorted(missing))}"


def _missing(programs: Mapping[str, str]) -> list[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [program for program in programs if shutil.which(program, path=path) is None]

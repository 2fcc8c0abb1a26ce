"""Packages that the how-to pages describe: written, installed and used as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def files_of(page: str) -> dict[str, str]:
    """Each block of code that its page names (```NAME`:`` before it), by that name."""
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w.-]+)`:\n\n```\w*\n(.*?)```", text, re.DOTALL))


def install(files: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Write the files and install the package beside them; the environment of a process that has it."""
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    target = directory / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(target), str(directory)]
    subprocess.run(command, check=True, timeout=300)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(target), "PATH": path, "NO_COLOR": "1", "COLUMNS": "200"}

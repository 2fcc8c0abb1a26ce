"""A batch system made of files and small shell programs, for an agent whose machine is a node of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.real.agent.service_double import Json, ServiceDouble

_SLEEP = shutil.which("sleep") or "/bin/sleep"


class Pool:
    """What its daemons and commands did is read from their log."""

    def __init__(self, directory: Path, service: ServiceDouble) -> None:
        self.directory = directory
        self.service = service
        directory.mkdir()
        self.job = f"job{os.getpid() % 10**6}"
        """What the processes of its jobs are called: nobody else's are."""
        shutil.copy(_SLEEP, directory / self.job)
        self._jobs: list[subprocess.Popen[bytes]] = []

    def order(self, **changes: Json) -> None:
        """What the machine is told when it joins."""
        batch: dict[str, Json] = {
            "files": [],
            "prepare": [],
            "services": [self.service_of("daemon")],
            "busy": [self.job],
            "drain": self.shell("echo drain >> log"),
            "resume": self.shell("echo resume >> log"),
        }
        self.service.queue = {"kind": "batch", "settings": {}, "secrets": {}, "batch": {**batch, **changes}}

    def shell(self, script: str) -> Json:
        """A command that runs this in the pool's directory."""
        return ["/bin/sh", "-c", f"cd {self.directory}; {script}"]

    def service_of(self, name: str, script: str = "", **environment: Json) -> Json:
        """A daemon: it says when it begins and when it is told to end."""
        waits = f"trap 'echo {name} ends >> log; exit 0' TERM; echo {name} $$ >> log; while :; do sleep 0.1; done"
        return {"name": name, "command": self.shell(script or waits), "environment": environment}

    def log(self) -> list[str]:
        """What was done, in order."""
        try:
            return (self.directory / "log").read_text().splitlines()
        except FileNotFoundError:
            return []

    def started(self, name: str = "daemon") -> list[int]:
        """Process numbers, one for each start of this daemon."""
        found = [line.split() for line in self.log()]
        return [int(words[1]) for words in found if words[0] == name and words[1].isdigit()]

    def orders(self) -> list[str]:
        """Local drains, resumes and ends of daemons, in order."""
        return [line for line in self.log() if not line.split()[-1].isdigit()]

    def run_job(self, seconds: float) -> subprocess.Popen[bytes]:
        """A job as the batch system would start it: nobody's child that the agent knows of."""
        job = subprocess.Popen([self.directory / self.job, str(seconds)], start_new_session=True)
        self._jobs.append(job)
        return job

    def end(self) -> None:
        """Kill what runs."""
        for job in self._jobs:
            job.kill()
            job.wait()


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

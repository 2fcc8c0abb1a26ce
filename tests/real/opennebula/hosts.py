"""Hosts for the double: a machine that OpenNebula calls running is a process of this host, which runs its user-data.

The agent would switch its machine off when it is done. Here the machine is this host: its context is changed before
anything reads it, so that the agent just ends, and what has ended is then switched off.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from gridtide.agent import agent
from tests.real.opennebula.server import ACTIVE, POWEROFF, RUNNING, OpenNebula

_EVERY = 0.05


class Hosts:
    """A context manager. ``site``: leftovers are told by it, see LiveSite."""

    def __init__(self, nebula: OpenNebula, directory: Path, site: str) -> None:
        self._nebula = nebula
        self._directory = directory
        self._site = site
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.booted: list[str] = []
        """Workers whose machine ever ran."""

    def __enter__(self) -> Hosts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(10.0)
        for number in list(self._processes):
            self._kill(number)

    def _watch(self) -> None:
        while not self._done.wait(_EVERY):
            living = {each.id: each for each in self._nebula.living()}
            for number, machine in living.items():
                if machine.state == ACTIVE and machine.life_cycle == RUNNING and number not in self._processes:
                    self.booted.append(machine.name)
                    (context,) = machine.vectors("CONTEXT")
                    self._boot(number, base64.b64decode(context["USER_DATA"]))
            for number in [each for each in self._processes if each not in living]:
                self._kill(number)
            for number, process in self._processes.items():
                if process.poll() is not None and living[number].state == ACTIVE:
                    self._nebula.put(number, POWEROFF)

    def _boot(self, number: int, user_data: bytes) -> None:
        home = self._directory / str(number)
        home.mkdir(parents=True, mode=0o700)
        context = home / "context.json"
        context.touch(mode=0o600)
        context.write_text(json.dumps({**json.loads(user_data), "shutdown": "exit"}))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "GRIDTIDE_MACHINE": f"{self._site}.nebula/{number}",
        }
        with (home / "log").open("wb") as log:
            self._processes[number] = subprocess.Popen(
                [sys.executable, "-I", agent.__file__, "--context", str(context)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=home,
                start_new_session=True,
            )

    def _kill(self, number: int) -> None:
        process = self._processes.pop(number)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""A worker of a test pool: a capsule in which the orders of a join are carried out, as the agent does it."""

from __future__ import annotations

import shlex
from pathlib import Path

from gridtide.model.ids import WorkerId
from gridtide.queues.protocol import JoinOrders
from tests.real.htcondor.capsule import Capsule


class WorkerMachine:
    """``orders`` are those of kind "batch"."""

    def __init__(self, tree: Path, home: Path, name: str, orders: JoinOrders) -> None:
        assert orders.batch is not None
        self.name, self.batch = name, orders.batch
        self.worker_id = WorkerId(name)
        self.capsule = Capsule(tree, home, name)
        for file in orders.batch.files:
            self.capsule.write(file.path, file.content, file.mode)
        self.capsule.write("/etc/hosts", f"127.0.0.1 localhost {name}\n")

    def start(self) -> None:
        """Prepare, and start the services."""
        self.capsule.start()
        script = [*(shlex.join(command) for command in self.batch.prepare)]
        for number, service in enumerate(self.batch.services):
            last = number == len(self.batch.services) - 1
            script.append(("exec " if last else "") + shlex.join(service.command) + ("" if last else " &"))
        self.capsule.spawn(["sh", "-ec", "\n".join(script)])

    def kill(self) -> None:
        """The machine ends without a word."""
        self.capsule.kill()

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        places = sorted((self.capsule.upper / "var/log/condor").glob("*Log*"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in places)

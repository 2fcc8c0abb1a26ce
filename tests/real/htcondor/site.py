"""A real HTCondor pool and a real site that gives it workers, for tests and benchmarks."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.htcondor.pool import DOMAIN, Pool, running_pool
from tests.real.images import image_store

_LOOK_EVERY = 0.1
_HELD = 5
QUICK_POOL = "SHADOW_WORKLIFE = 3600\n"
"""A shadow takes the next job itself, as is HTCondor's default; the tests' pool starts a new one for each."""


@dataclass(frozen=True, slots=True)
class PoolSite:
    """A pool and the site that gives it workers."""

    pool: Pool
    site: LiveSite

    def jobs(self) -> list[int]:
        """The status of each job that the schedd still has (1 waits, 2 runs, 5 is held)."""
        return [int(line[0]) for line in self.queued("JobStatus")]

    def queued(self, *attributes: str, constraint: str = "true") -> list[list[str]]:
        """These attributes of the first schedd's jobs; no collector is asked where it is."""
        said = self.pool.manager.run("condor_q", "-allusers", "-constraint", constraint, "-af", *attributes)
        return [line.split() for line in said.splitlines()]

    def wait(self, holds: Callable[[], bool], *, timeout: float, what: str) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        self.site.wait_until(holds, timeout=timeout, what=what)
        return time.monotonic() - began

    def finish(self, *, timeout: float) -> float:
        """Seconds until no job is left. RuntimeError when one is held: that never ends."""

        def ended() -> bool:
            states = self.jobs()
            if _HELD in states:
                raise RuntimeError(f"a job is held: {self.queued('HoldReason')}")
            time.sleep(_LOOK_EVERY)
            return not states

        return self.wait(ended, timeout=timeout, what="the jobs to end")

    def workers(self, *states: str) -> int:
        """How many there are, of these states."""
        listed = self.site.get("/v1/workers", limit=1000)["workers"]
        return sum(not states or worker["state"] in states for worker in listed)

    def ids(self, *states: str) -> list[str]:
        """The workers of these states, or all."""
        listed = self.site.get("/v1/workers", limit=1000)["workers"]
        return sorted(worker["id"] for worker in listed if not states or worker["state"] in states)

    def why(self, subject: str) -> str:
        """What ``gridtide explain`` says of a worker or group, now and in the past."""
        return str(self.site.client.get(f"/v1/explain/{subject}").text)

    def sources(self) -> dict[str, tuple[str, str | None]]:
        """Quality and error of each reading of the queue: ``demand``, ``nodes``."""
        told = self.site.get("/v1/status")["sources"]
        return {
            each["source"].rpartition("/")[2]: (each["quality"], each["error"])
            for each in told
            if each["source"].startswith("queue/")
        }

    def happened(self, *texts: str) -> list[str]:
        """Subjects of all events with one of these texts, from the first on."""
        events = self.site.get("/v1/events", limit=1000)["events"]
        return [event["subject"] for event in events if event["text"] in texts]

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``gridtide`` with the site's file."""
        return subprocess.run(
            [sys.executable, "-m", "gridtide.cli.main", *words, "--site", str(self.site.file)],
            capture_output=True, text=True, timeout=120, check=check,
        )  # fmt: skip

    def where(self) -> list[str]:
        """The worker, or else the machine, of each running job."""
        hosts = [line[0] for line in self.queued("RemoteHost", constraint="JobStatus == 2")]
        return sorted(host.rpartition("@")[2].partition(".")[0] for host in hosts)

    def whole(self, *clusters: int) -> bool:
        """Whether every job of these clusters ran exactly once, to its end. AssertionError tells what else became."""
        wanted = " || ".join(f"ClusterId == {number}" for number in clusters)
        said = self.pool.manager.run(
            "condor_history", "-constraint", wanted, "-af", "GlobalJobId", "JobStatus", "NumJobStarts", "ExitCode"
        )
        told = [line.split() for line in said.splitlines()]
        assert told, "no job of these has ended"
        wrong = [line for line in told if line[1:] != ["4", "1", "0"]]
        assert not wrong, f"jobs that were disturbed (status, starts, exit code): {wrong}"
        return True

    def processes(self, worker: str, name: str) -> list[int]:
        """Numbers, as this host has them, of the programs of this name in the worker's machine."""
        return [number for number in self._inside(worker) if _name_of(number) == name[:15]]

    def signal(self, worker: str, name: str, number: signal.Signals) -> None:
        """To all programs of this name in the worker's machine."""
        found = self.processes(worker, name)
        assert found, f"no {name} runs in {worker}"
        for process in found:
            os.kill(process, number)

    def pull_the_plug(self, worker: str) -> None:
        """End the worker's machine without a word."""
        for process in self._inside(worker):
            with suppress(OSError):  # it has just ended
                numbers = Path(f"/proc/{process}/status").read_text(encoding="ascii").partition("NSpid:")[2]
                if numbers.split("\n")[0].split()[-1] == "1":
                    os.kill(process, signal.SIGKILL)

    def _inside(self, worker: str) -> list[int]:
        """All processes in the name space of the worker's machine."""
        ours = os.readlink("/proc/self/ns/pid")
        spaces: dict[str, list[int]] = {}
        found = None
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                space = os.readlink(entry / "ns/pid")
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has just ended
                continue
            spaces.setdefault(space, []).append(int(entry.name))
            if space != ours and f"/{worker}\0".encode() in environment:
                found = space
        return [] if found is None else spaces[found]

    def is_seen(self) -> bool:
        """Whether all that the queue says is fresh."""
        sources = self.site.get("/v1/status")["sources"]
        return all(each["quality"] == "fresh" for each in sources if each["source"].startswith("queue/"))

    def scale(self, **wishes: int | None) -> None:
        """What an operator does."""
        self.site.post("/v1/groups/grid/scale", wishes)


@contextmanager
def pool_site(
    directory: Path,
    *,
    cloud: str = "process",
    maximum: int = 7,
    minimum: int = 0,
    idle_for: str = "10 s",
    pool: Pool | None = None,
    update_interval: str = "5 s",
    sizes: Sequence[tuple[int, str]] | None = None,
    network: str = "",
    listen: str = "127.0.0.1",
    closes: bool = True,
) -> Iterator[PoolSite]:
    """A site with one-slot workers, and a pool of its own unless one is given.

    ``sizes``: for each a group (``grid``, ``grid-2``, ...) with a shape of so many cores and so much memory.
    ``network``: lines of the cloud. Leaving the block closes the site: its workers end.
    ``closes`` False: its machines are switched off, whatever HTCondor still holds of them.
    """
    image = "batch-tree" if cloud == "process" else "batch"
    if pool is None:
        with (
            running_pool(more=QUICK_POOL) as own,
            pool_site(
                directory, cloud=cloud, maximum=maximum, minimum=minimum, idle_for=idle_for, pool=own,
                update_interval=update_interval, sizes=sizes, network=network, listen=listen,
            ) as made,
        ):  # fmt: skip
            yield made
        return
    if sizes is None:
        sizes = [(1, "1 GiB" if cloud == "process" else "512 MiB")]
    names = ["grid", *(f"grid-{number}" for number in range(2, len(sizes) + 1))]
    shapes = ", ".join(
        f'{name} = {{ cores = {cores}, memory = "{memory}" }}'
        for name, (cores, memory) in zip(names, sizes, strict=True)
    )
    text = f"""
[site]
name = "pool-{secrets.token_hex(5)}"

[service]
listen = "{listen}:0"

[controller]
queue_refresh = "1 s"

[queues.pool]
type = "htcondor"
collector = "{pool.collector}"
trust_domain = "{DOMAIN}"
signing_key = "{pool.signing_key}"
address = "{pool.address}"
update_interval = "{update_interval}"

[clouds.here]
type = "{cloud}"
images = "{image_store(image).directory}"
quota = {{ machines = {2 * maximum * len(sizes) + 2} }}
shapes = {{ {shapes} }}
{network}
"""
    for name in names:
        text += f"""
[groups.{name}]
queue = "pool"
clouds = ["here"]
shapes = ["{name}"]
image = "{image}"
minimum = {minimum}
maximum = {maximum}
policy = {{ type = "queue", idle_for = "{idle_for}" }}
"""
    with LiveSite(directory, text) as site:
        one = PoolSite(pool, site)
        # A collector that was just started is not believed for a while: a real pool's has been there for long.
        one.wait(one.is_seen, timeout=120, what="the pool's first answer")
        yield one
        if not closes:
            return
        site.client.post("/v1/site/close")
        site.wait_for_no_workers(timeout=120)


def _name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""

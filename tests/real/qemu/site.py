"""A live site whose workers are real virtual machines."""

from __future__ import annotations

import secrets
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.qemu.images import image_store


def virtual_site(
    directory: Path,
    *,
    maximum: int = 2,
    policy: str = '{ type = "queue", idle_for = "1 s" }',
    image: str = "thin",
    cores: int = 1,
    machines: Path | None = None,
    images: Path | None = None,
    group: str = "",
    cloud: str = "",
    memory: str = "256 MiB",
) -> LiveSite:
    """Pilot queue, QEMU cloud, one small shape."""
    place = f"directory = {str(machines)!r}" if machines is not None else ""
    text = f"""
[site]
name = "qemu-{secrets.token_hex(5)}"

[service]
listen = "127.0.0.1:0"

[queues.jobs]
type = "pilot"

[clouds.local]
type = "qemu"
images = "{images or image_store().directory}"
overcommit = 8.0
shapes = {{ slot = {{ cores = {cores}, memory = "{memory}", disk = "2 GiB" }} }}
{place}
{cloud}

[groups.workers]
queue = "jobs"
clouds = ["local"]
image = "{image}"
maximum = {maximum}
policy = {policy}
{group}
"""
    return LiveSite(directory, text)


def shell(script: str, *, jobs: int = 1) -> str:
    """The description of jobs that run a shell script in little memory."""
    quoted = script.replace("\\", "\\\\").replace('"', '\\"').replace("$(", "$$(")
    many = f"Array = {jobs};" if jobs > 1 else ""
    return f'Executable = "/bin/sh"; Arguments = {{"-c", "{quoted}"}}; Memory = 64; {many}'


def machine_home(site: LiveSite, worker: str) -> Path:
    """The directory of a worker's machine."""
    return site.state / "clouds/local" / worker


def workers(site: LiveSite) -> list[dict[str, object]]:
    """All that are not gone."""
    found: list[dict[str, object]] = site.get("/v1/workers")["workers"]
    return found


def log_of(site: LiveSite, submission: int, index: int = 0) -> str:
    """What a job of the submission wrote."""
    return site.client.get(f"/v1/jobs/{submission}.{index}/log").text


def states(site: LiveSite, submission: int) -> dict[str, int]:
    """How many jobs are in which state; states without any are left out."""
    return {state: count for state, count in site.counts(submission).items() if count}


def finish(site: LiveSite, submission: int, timeout: float = 60.0) -> dict[str, int]:
    """Wait for the submission's end; :func:`states` then."""
    site.wait_for_jobs(submission, timeout=timeout)
    return states(site, submission)

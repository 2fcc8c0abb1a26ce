"""A whole site whose workers are processes with a root of their own: jobs run in the image, and nothing is left."""

from __future__ import annotations

import secrets
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.clouds.machines import TREE
from tests.real.images import tree_store
from tests.real.qemu.site import finish, log_of, shell

SITE = """
[site]
name = "tree-{name}"

[service]
listen = "127.0.0.1:0"

[queues.jobs]
type = "pilot"

[clouds.local]
type = "process"
images = "{images}"
shapes = {{ slot = {{ cores = 1, memory = "256 MiB" }} }}

[groups.workers]
queue = "jobs"
clouds = ["local"]
image = "{tree}"
maximum = 2
policy = {{ type = "per_job" }}
"""


def test_jobs_run_in_the_image(tmp_path: Path) -> None:
    images = tree_store(TREE)
    text = SITE.format(name=secrets.token_hex(4), images=images.directory, tree=TREE)
    with LiveSite(tmp_path, text) as site:
        submission = site.submit(
            shell("id -un; hostname; grep CODENAME /etc/os-release; ls /proc | grep -c ^[0-9]", jobs=2)
        )
        assert finish(site, submission) == {"done": 2}
        told = [log_of(site, submission, index).splitlines() for index in (0, 1)]
        assert {lines[0] for lines in told} == {"gridtide"}
        workers = {lines[1] for lines in told}
        assert len(workers) == 2
        assert {lines[2] for lines in told} == {"VERSION_CODENAME=trixie"}
        assert all(int(lines[3]) < 20 for lines in told), "of the host's processes none is seen"
        site.wait_for_no_workers()
        assert site.get("/v1/workers/" + workers.pop())["state"] == "gone"
        machines = site.state / "clouds/local"
        assert sorted(path.name for path in machines.iterdir()) == [".ending", ".making", ".making.lock", ".past"]

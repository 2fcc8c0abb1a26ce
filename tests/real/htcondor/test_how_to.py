"""The page "I have an HTCondor pool", followed word by word."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from gridtide.testing.live_site import LiveSite
from tests.real.htcondor.pool import DOMAIN, HOW_TO, Pool, running_pool
from tests.real.htcondor.site import PoolSite
from tests.real.images import image_store

HERE = """
[clouds.private]
type = "process"
images = "{images}"
shapes = {{ slot = {{ cores = 1, memory = "1 GiB" }} }}
"""
"""In place of the page's cloud: there is no OpenStack here."""


def test_the_page_makes_a_pool_elastic(tmp_path: Path) -> None:
    """Start: a pool with the page's lines in its configuration. Do: its site file, with the names of this pool; its
    check; jobs, one of which asks for what the page's attributes say. Expected: workers come, the jobs end, they go."""
    site_file, attributes = blocks("toml")
    with running_pool() as pool:
        text = named_like(pool, site_file, images(tmp_path / "images"))
        text = text.replace("[groups.grid]\n", attributes + 'policy = { type = "queue", idle_for = "2 s" }\n')
        text += '\n[service]\nlisten = "127.0.0.1:0"\n'
        text = text.replace("[queues.pool]\n", f'[queues.pool]\naddress = "{pool.address}"\nupdate_interval = "2 s"\n')
        (tmp_path / "site").mkdir()
        shutil.copy(pool.signing_key, tmp_path / "site/gridtide")
        with LiveSite(tmp_path / "site", text) as site:
            one = PoolSite(pool, site)
            checked = gridtide("check", str(site.file))
            assert checked.returncode == 0, checked.stdout
            assert "queue pool" in checked.stdout
            one.wait(one.is_seen, timeout=120, what="the pool's first answer")
            pool.sleep(1, 2, 'requirements = HasCVMFS && Site == "torino"')
            one.finish(timeout=120)
            site.wait_for_no_workers()
            pool.sleep(1, 1, 'requirements = HasCVMFS && Site == "nowhere"')
            one.wait(lambda: "nowhere" in gridtide("explain", "grid", site=site).stdout, timeout=120, what="the reason")
            assert one.workers() == 0
            assert "nowhere" in gridtide("status", site=site).stdout
            pool.remove_all_jobs()


def test_every_command_on_the_page_exists() -> None:
    page = HOW_TO.read_text(encoding="utf-8")
    named = {match.split()[0] for match in re.findall(r"`gridtide ([a-z][a-z -]*)", page)}
    assert len(named) >= 4
    for name in sorted(named):
        assert gridtide(name, "--help").returncode == 0, name


def blocks(language: str) -> list[str]:
    page = HOW_TO.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def named_like(pool: Pool, text: str, store: Path) -> str:
    """The page's example names, replaced by this pool's."""
    text = text.replace("cm.example.org", pool.collector).replace("example.org", DOMAIN)
    return re.sub(r"\n\[clouds\.private\]\n.*?\n\n", HERE.format(images=store) + "\n", text, flags=re.DOTALL)


def images(directory: Path) -> Path:
    """A store in which the page's image has the page's name."""
    built = image_store("batch-tree").directory
    directory.mkdir()
    (directory / "objects").symlink_to(built / "objects")
    (directory / "batch").symlink_to((built / "batch-tree").readlink())
    return directory


def gridtide(*arguments: str, site: LiveSite | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--site", str(site.file)] if site is not None else []
    return subprocess.run(
        [sys.executable, "-m", "gridtide.cli.main", *arguments, *where],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )

"""The page on cloud drivers, followed literally: written, judged by the suite, and used by a site that runs a job."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from gridtide.clouds.process import AGENT
from gridtide.testing.conformance import PASSED, cases, load
from gridtide.testing.live_site import LiveSite
from tests.real.docs.packages import files_of, install

FILES = files_of("write-a-cloud-driver.md")
SERVICE = Path(__file__).parent / "hut_service.py"


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, Mapping[str, str]]:
    """Where the page's files are, and the environment of who has installed them."""
    directory = tmp_path / "hut-driver"
    environment = install(FILES, directory)
    shutil.copy(SERVICE, directory)
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    return directory, environment


@contextlib.contextmanager
def running_hut(directory: Path) -> Iterator[str]:
    """A Hut whose machines run the agent; its address."""
    command = [sys.executable, str(SERVICE), str(directory), sys.executable, "-I", str(AGENT), "--context", "user-data"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as service:
        end = time.monotonic() + 60.0
        while not (directory / "url").exists():
            assert service.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        yield (directory / "url").read_text()


def test_the_driver_is_small() -> None:
    assert len(FILES["gridtide_hut.py"].splitlines()) < 250


def test_the_driver_conforms(package: tuple[Path, Mapping[str, str]]) -> None:
    directory, environment = package
    command = [sys.executable, "-m", "gridtide.testing.conformance", "--run", "test_hut.py"]
    ran = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    column = load(directory / "conformance.json")["hut"]
    assert column.results == dict.fromkeys(cases(), PASSED)
    assert column.lines == len(FILES["gridtide_hut.py"].splitlines())


def test_a_site_runs_a_job_on_it(
    package: tuple[Path, Mapping[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, environment = package
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    with running_hut(tmp_path / "hut") as url:
        shutil.copy(tmp_path / "hut" / "token", directory / "hut.token")
        text = FILES["site.toml"].replace("127.0.0.1:8470", "127.0.0.1:0").replace("http://127.0.0.1:8471", url)
        (directory / "site.toml").write_text(text)
        command = ["gridtide", "check", "site.toml", "--json"]
        checked = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        texts = [each["text"] for each in json.loads(checked.stdout)["findings"]]
        assert "cloud type 'hut' is of gridtide-hut 1.0" in texts
        with LiveSite(directory, text) as site:
            number = site.submit('Executable = "/bin/echo"; Arguments = "hello";')
            assert site.wait_for_jobs(number, timeout=180.0)["done"] == 1
            assert [each for each in (tmp_path / "hut").iterdir() if each.is_dir()], "a machine of the Hut ran it"
            site.wait_for_no_workers(timeout=180.0)

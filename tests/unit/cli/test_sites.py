"""``init check schema version``."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from gridtide import __version__
from gridtide.cli import sites
from gridtide.cli.exit_codes import ExitCode
from gridtide.clouds.protocol import Finding, Level
from gridtide.site.base import LONGEST_SITE_NAME, check_name
from gridtide.site.loader import load
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import Answer, FakeService, refuse


def test_init_makes_a_file_that_can_be_used(run: Run, tmp_path: Path) -> None:
    ran = run("init", "--name", "torino")
    assert (ran.code, ran.stderr) == (0, "")
    assert load(tmp_path / "site.toml").name == "torino"


def test_init_into_a_directory_in_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert run("init", "there", "--json").document == {"file": "there/site.toml"}
    load(tmp_path / "there/site.toml")


def test_init_replaces_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("mine")
    assert run("init").code == ExitCode.CONFLICT
    assert (tmp_path / "site.toml").read_text() == "mine"


def test_init_with_a_name_that_cannot_be_one(run: Run, tmp_path: Path) -> None:
    assert run("init", "--name", "No Such Name").code == ExitCode.DESCRIPTION
    assert not (tmp_path / "site.toml").exists()


def test_init_where_nothing_can_be_written(run: Run, tmp_path: Path) -> None:
    assert run("init", "no/such/place.toml").code == ExitCode.USAGE


@pytest.mark.parametrize("host", ["node-1.example.org", "WN_0042", "42", "-", "a" * 60, "x" * 19 + "-y"])
def test_every_machine_name_gives_a_site_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    check_name(sites._own_name(), LONGEST_SITE_NAME)


def findings(runtime: ModuleType, *found: Finding) -> None:
    async def check_site(path: Path) -> list[Finding]:
        return list(found)

    runtime.check_site = check_site  # type: ignore[attr-defined]


GOOD = Finding("cloud local", Level.OK, "it answers")
BAD = Finding("queue jobs", Level.ERROR, "no answer", "start it")


def test_check_says_that_all_is_well(run: Run, runtime: ModuleType) -> None:
    run("init")
    findings(runtime, GOOD, Finding("image", Level.WARNING, "it is old"))
    ran = run("check")
    assert ran.code == 0
    assert "site.toml: no errors" in ran.stdout
    assert "it is old" in ran.stdout


def test_check_fails_when_something_is_wrong(run: Run, runtime: ModuleType) -> None:
    run("init")
    findings(runtime, GOOD, BAD)
    ran = run("check", "site.toml")
    assert ran.code == ExitCode.FAILED
    assert ran.error == "gridtide: site.toml: 1 error found"
    assert "start it" in ran.stdout
    assert run("check", "--json").document == {
        "file": "site.toml",
        "findings": [
            {"subject": "cloud local", "level": "ok", "text": "it answers", "remedy": ""},
            {"subject": "queue jobs", "level": "error", "text": "no answer", "remedy": "start it"},
        ],
    }


def test_check_shows_all_problems_of_the_file_at_once(run: Run, runtime: ModuleType, tmp_path: Path) -> None:
    run("init")
    path = tmp_path / "site.toml"
    path.write_text(path.read_text().replace("maximum = 4", "maximun = 4").replace('"process"', '"proces"'))
    findings(runtime, GOOD)
    ran = run("check")
    assert ran.code == ExitCode.DESCRIPTION
    assert "maximun" in ran.stdout
    assert "proces" in ran.stdout
    assert "it answers" not in ran.stdout
    assert len(ran.stderr.splitlines()) == 1


def test_schema_is_a_json_schema(run: Run) -> None:
    plain, as_json = run("schema"), run("schema", "--json")
    assert json.loads(plain.stdout) == as_json.document
    assert isinstance(as_json.document, dict)
    assert "properties" in as_json.document


def test_version_without_a_service(run: Run) -> None:
    assert run("version").stdout.strip() == f"gridtide {__version__}"
    assert run("version", "--json").document == {"command": __version__, "service": None, "url": None}


def test_version_of_the_service(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/version", Answer(document={"version": "9.9", "site": "torino"}))
    assert f"service 9.9 at {service.url}" in ask("version").stdout
    assert ask("version", "--json").document == {"command": __version__, "service": "9.9", "url": service.url}


def test_version_of_a_service_that_was_named_must_answer(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/version", refuse(401, "AccessDenied", "no token"))
    ran = ask("version")
    assert ran.code == ExitCode.REFUSED
    assert "--token-file" in ran.error

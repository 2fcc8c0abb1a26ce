"""Where the service is, and which token is sent to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gridtide.cli import locate
from gridtide.cli.exit_codes import ExitCode
from gridtide.cli.locate import Address, ServiceFile, Where
from gridtide.cli.problems import NoService, WrongUsage
from gridtide.errors import AccessDenied, NotFound, SiteFileError
from gridtide.site.starter import starter
from tests.unit.cli import samples
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import Answer, FakeService

PEM = "-----BEGIN CERTIFICATE-----\nabc\n"


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site whose service has been started."""
    path = tmp_path / "site.toml"
    path.write_text(starter("torino"))
    (tmp_path / "state").mkdir()
    locate.write_service_file(tmp_path / "state", ServiceFile("https://127.0.0.1:8470", PEM, 1, 2))
    private(tmp_path / "state/admin.token", "gt_admin.s3cret\n")
    return path


def test_by_the_site_file_in_the_present_directory(site: Path) -> None:
    assert Where().address() == Address("https://127.0.0.1:8470", "gt_admin.s3cret", PEM)


def test_by_a_site_file_named(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(NoService):
        Where().address()
    assert Where(site=site).address().url == "https://127.0.0.1:8470"
    assert Where(site=site.parent).address().url == "https://127.0.0.1:8470"
    monkeypatch.setenv("GRIDTIDE_SITE", str(site))
    assert Where().address().url == "https://127.0.0.1:8470"


@pytest.mark.parametrize(
    "broken", ["maximum = ", 'queue = "nowhere"', "[[[", "\n[site\n"], ids=["value", "name", "syntax", "section"]
)
def test_a_site_that_runs_is_reached_though_its_file_was_broken(site: Path, broken: str) -> None:
    site.write_text(site.read_text() + broken)
    assert Where().address().url == "https://127.0.0.1:8470"


def test_a_broken_file_still_says_where_the_state_is(site: Path, tmp_path: Path) -> None:
    (tmp_path / "state").rename(tmp_path / "kept")
    site.write_text(site.read_text().replace('# state = "state" ', 'state = "kept" ') + 'typo = "four"\n')
    assert Where().address().url == "https://127.0.0.1:8470"


def test_a_broken_file_without_a_state_is_told(site: Path, tmp_path: Path) -> None:
    (tmp_path / "state").rename(tmp_path / "kept")
    site.write_text("[site")
    with pytest.raises(SiteFileError, match="not TOML"):
        Where().address()


def test_what_the_user_names_comes_first(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDTIDE_URL", "https://env:1")
    monkeypatch.setenv("GRIDTIDE_TOKEN", " gt_env.x\n")
    assert Where().address() == Address("https://env:1", "gt_env.x", None)
    own = private(tmp_path / "own.token", "gt_own.y")
    (tmp_path / "ca.pem").write_text(PEM)
    chosen = Where(url="https://named:1", token_file=own, ca_file=tmp_path / "ca.pem")
    assert chosen.address() == Address("https://named:1", "gt_own.y", PEM)


def test_the_administrators_token_goes_to_its_own_service_only(site: Path) -> None:
    assert Where(url="https://elsewhere:1").address().token is None


def test_a_token_file_by_the_environment(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDTIDE_TOKEN_FILE", str(private(tmp_path / "t", "gt_file.z")))
    assert Where().address().token == "gt_file.z"


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = private(tmp_path / "t", "gt_a.b")
    path.chmod(0o640)
    with pytest.raises(AccessDenied, match="chmod 600"):
        Where(url="https://a:1", token_file=path).address()


@pytest.mark.parametrize("text", ["", "two words", "line\nline", "\x01", "é"])
def test_a_file_without_one_token_is_told(tmp_path: Path, text: str) -> None:
    path = private(tmp_path / "t", text)
    with pytest.raises(AccessDenied):
        Where(url="https://a:1", token_file=path).address()


@pytest.mark.parametrize("url", ["http://example.org:1", "http://10.0.0.1:1", "http://localhost.evil.org"])
def test_no_token_in_the_clear_over_a_network(tmp_path: Path, url: str) -> None:
    path = private(tmp_path / "t", "gt_a.b")
    with pytest.raises(WrongUsage, match="https"):
        Where(url=url, token_file=path).address()
    assert Where(url=url).address().token is None  # nothing to protect


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "http://127.9.9.9"])
def test_the_loopback_may_be_plain(tmp_path: Path, url: str) -> None:
    path = private(tmp_path / "t", "gt_a.b")
    assert Where(url=url, token_file=path).address().token == "gt_a.b"


@pytest.mark.parametrize("url", ["", "example.org", "file:///etc/passwd", "https://", "ftp://a"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises((WrongUsage, NoService)):
        Where(url=url).address()


def test_a_site_that_was_never_started(site: Path) -> None:
    (site.parent / "state/service.json").unlink()
    with pytest.raises(NoService, match="gridtide up"):
        Where().address()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ca": null}', "\xff"])
def test_a_broken_service_file_is_told(site: Path, text: str) -> None:
    (site.parent / "state/service.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(NoService, match=r"service\.json"):
        Where().address()


def test_an_authority_may_be_named_by_path(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    (tmp_path / "service.json").write_text(json.dumps({"url": "https://a", "ca": "ca.pem"}))
    assert locate.read_service_file(tmp_path) == ServiceFile("https://a", PEM, None, None)


def test_without_a_site_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gridtide init"):
        Where(site=tmp_path / "nowhere.toml").site_file()


def test_a_process_is_known_by_number_and_start() -> None:
    mine = locate.process_started(os.getpid())
    assert mine is not None
    assert ServiceFile("u", None, os.getpid(), mine).alive is True
    assert ServiceFile("u", None, os.getpid(), mine + 1).alive is False
    assert ServiceFile("u", None, None, None).alive is None


def test_no_repr_shows_a_secret() -> None:
    assert "s3cret" not in repr(Address("https://a", "gt_a.s3cret", PEM))


def test_the_token_travels_in_the_header_alone(run: Run, service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/v1/status", Answer(document=samples.status()))
    path = private(tmp_path / "t", "gt_a.s3cret")
    assert run("status", "--url", service.url, "--token-file", str(path)).code == 0
    (asked,) = service.asked
    assert asked.headers["Authorization"] == "Bearer gt_a.s3cret"
    assert asked.headers["User-Agent"].startswith("gridtide/")


def test_no_proxy_of_the_environment_sees_the_token(
    run: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("GET", "/v1/status", Answer(document=samples.status()))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert run("status", "--url", service.url).code == ExitCode.OK

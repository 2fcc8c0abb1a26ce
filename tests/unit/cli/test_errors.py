"""Each kind of error: its exit code, exactly one line on stderr, and the same in JSON."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gridtide.cli import exit_codes, problems
from gridtide.cli.exit_codes import ExitCode, exit_code
from gridtide.clock import SystemClock
from gridtide.errors import GridtideError
from gridtide.service.certificates import ServerTls
from tests.unit.cli import samples
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_service import Answer, FakeService, refuse, serving

KINDS = [
    (400, "InvalidRequest", ExitCode.INVALID),
    (400, "JobDescriptionError", ExitCode.DESCRIPTION),
    (400, "SiteFileError", ExitCode.DESCRIPTION),
    (401, "AccessDenied", ExitCode.REFUSED),
    (403, "AccessDenied", ExitCode.REFUSED),
    (404, "NotFound", ExitCode.NOT_FOUND),
    (409, "Conflict", ExitCode.CONFLICT),
    (413, "InvalidRequest", ExitCode.INVALID),
    (429, "AccessDenied", ExitCode.UNAVAILABLE),
    (503, "StoreUnavailable", ExitCode.UNAVAILABLE),
    (503, "QueueError", ExitCode.UNAVAILABLE),
    (500, "GridtideError", ExitCode.INTERNAL),
    (418, "SomethingNew", ExitCode.INTERNAL),
    (404, "SomethingNew", ExitCode.NOT_FOUND),
]


@pytest.mark.parametrize(("status", "kind", "code"), KINDS)
def test_an_error_of_the_service_is_one_line_and_a_code(
    ask: Run, service: FakeService, status: int, kind: str, code: ExitCode
) -> None:
    service.on("GET", "/v1/status", refuse(status, kind, "it is\nnot so", "line 3", "do this"))
    ran = ask("status")
    assert ran.code == code
    assert ran.stdout == ""
    assert ran.error == "gridtide: line 3: it is not so (do this)"


@pytest.mark.parametrize(("status", "kind", "code"), KINDS)
def test_an_error_is_a_document_too(ask: Run, service: FakeService, status: int, kind: str, code: ExitCode) -> None:
    service.on("GET", "/v1/status", refuse(status, kind, "not so", "line 3", "do this"))
    ran = ask("status", "--json")
    assert ran.code == code
    assert isinstance(ran.document, dict)
    error = ran.document["error"]
    assert isinstance(error, dict)
    assert (error["exit_code"], error["what"], error["where"], error["remedy"]) == (code, "not so", "line 3", "do this")
    assert ran.error.startswith("gridtide: ")


def test_every_error_has_a_code_of_its_own_or_is_internal() -> None:
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, GridtideError)]
    own = {kind for kind in kinds if kind is not GridtideError}
    assert own == {kind for kind, _ in exit_codes._CODES} & own
    assert exit_code(GridtideError("?")) is ExitCode.INTERNAL


def test_codes_keep_their_numbers() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "DESCRIPTION": 3,
        "NO_SERVICE": 4,
        "REFUSED": 5,
        "NOT_FOUND": 6,
        "CONFLICT": 7,
        "INVALID": 8,
        "UNAVAILABLE": 9,
        "TIMED_OUT": 10,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
    }


def test_nobody_listens(run: Run) -> None:
    with socket.socket() as held:  # bound, but not listening: nobody else can take the port meanwhile
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        ran = run("status", "--url", url)
    assert ran.code == ExitCode.NO_SERVICE
    expected = f"gridtide: no service answers at {url}: is it running? start it with `gridtide up`"
    assert ran.error == expected


def test_no_service_and_no_site(run: Run) -> None:
    ran = run("status")
    assert ran.code == ExitCode.NO_SERVICE
    assert "site.toml" in ran.error


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b'{"site": "x"}', b'{"site": 3, "groups": [], "sources": []}', b""],
)
def test_nonsense_of_a_service_is_told(ask: Run, service: FakeService, content: bytes) -> None:
    service.on("GET", "/v1/status", Answer(content=content))
    ran = ask("status")
    assert ran.code == ExitCode.INTERNAL
    assert "answer" in ran.error


def test_a_proxy_that_speaks_html_is_told(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/status", Answer(502, content=b"<html>Bad Gateway</html>"))
    ran = ask("status")
    assert ran.code == ExitCode.INTERNAL
    assert "502 Bad Gateway" in ran.error


def test_a_connection_that_breaks_is_told(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/jobs/12.0/log", Answer(pieces=(b"x",), cut=True))
    ran = ask("logs", "12.0")
    assert ran.code == ExitCode.NO_SERVICE
    assert "connection broke" in ran.error


def test_an_unexpected_error_is_one_line_with_a_hint(
    ask: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("GET", "/v1/status", Answer(document=samples.status()))

    def broken(*_: object) -> None:
        raise ZeroDivisionError("something\ninside")

    monkeypatch.setattr("gridtide.cli.tables.status", broken)
    ran = ask("status")
    assert ran.code == ExitCode.INTERNAL
    assert ran.error.startswith("gridtide: unexpected ZeroDivisionError: something inside")
    assert "--debug" in ran.error
    debug = ask("status", "--debug")
    assert debug.code == ExitCode.INTERNAL
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("statsu",), "No such command 'statsu'"),
        (("status", "--colour"), "No such option"),
        (("explain",), "Missing argument"),
        (("workers", "--limit", "many"), "--limit"),
        (("jobs", "--state", "asleep"), "asleep"),
        (("wait", "0"), "SUBMISSION"),
        (("scale", "grid", "--minimum", "-3"), "--minimum"),
        (("scale", "grid", "--desired", "file"), "'auto'"),
        (("cancel",), "name either jobs"),
        (("cancel", "1.2", "--submission", "1"), "name either jobs"),
        (("cancel", "12"), "--submission 12"),
        (("down", "--now", "--leave-workers"), "contradict"),
        (("token", "create", "rosa", "--expires-in", "soon"), "--expires-in"),
        (("token", "create", "rosa", "--expires-in", "0d"), "--expires-in"),
        (("token", "revoke", "gt_abc.secret"), "token list"),
        (("submit", "nowhere.jdl"), "nowhere.jdl"),
        (("status", "--url", "ftp://x"), "https://HOST:PORT"),
        (("status", "--token-file", "nowhere"), "nowhere"),
    ],
)
def test_wrong_usage_is_one_line_and_two(run: Run, arguments: tuple[str, ...], part: str) -> None:
    ran = run(*arguments)
    assert ran.code == ExitCode.USAGE
    assert part in ran.error
    assert ran.stdout == ""


def test_the_secret_of_a_token_given_by_mistake_is_not_repeated(run: Run) -> None:
    assert "secret" not in run("token", "revoke", "gt_abc.secret").stderr


def test_help_alone_is_shown_without_an_error_line(run: Run) -> None:
    ran = run()
    assert ran.code == ExitCode.USAGE
    assert ran.stderr == ""
    assert "submit" in ran.stdout


def test_only_the_sites_own_authority_is_believed(run: Run, tmp_path: Path) -> None:
    own, other = (
        ServerTls.of_site(tmp_path / name, site=name, names=["127.0.0.1"], clock=SystemClock())
        for name in ("own", "other")
    )
    for name, tls in (("own.pem", own), ("other.pem", other)):
        (tmp_path / name).write_text(tls.authority or "")
    with serving(own.context) as service:
        service.on("GET", "/v1/status", Answer(document=samples.status()))
        assert run("status", "--url", service.url, "--ca", "own.pem").code == 0
        for options in (("--ca", "other.pem"), ()):
            ran = run("status", "--url", service.url, *options)
            assert ran.code == ExitCode.NO_SERVICE
            assert "is not to be trusted" in ran.error
    assert len(service.asked) == 1


def test_an_authority_that_is_none_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    ran = run("status", "--url", "https://127.0.0.1:1", "--ca", "ca.pem")
    assert ran.code == ExitCode.NO_SERVICE
    assert "certificate cannot be read" in ran.error

"""``drain undrain scale reload token``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gridtide.cli.exit_codes import ExitCode
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.store.ports import Json
from tests.unit.cli import samples
from tests.unit.cli.conftest import HandClock, Run, lines
from tests.unit.cli.fake_service import Answer, FakeService, refuse

NAMES: list[Json] = ["grid-aaaaaaaa", "grid-bbbbbbbb"]


def drained(service: FakeService, *, force: bool = False) -> None:
    service.on("POST", "/v1/workers/drain", Answer(document={"workers": NAMES, "force": force}))


def test_drain(ask: Run, service: FakeService) -> None:
    drained(service)
    ran = ask("drain", "grid-aaaaaaaa", "grid-bbbbbbbb")
    assert ran.stdout.strip() == "2 workers ordered to drain"
    assert service.asked[0].body == {"workers": NAMES, "force": False}
    assert ask("drain", "grid-aaaaaaaa", "--json").document == {"workers": NAMES, "force": False}


def test_drain_waits_until_they_are_gone(ask: Run, service: FakeService) -> None:
    drained(service)
    one, two, other = (samples.worker(name, WorkerState.DRAINING) for name in (*map(str, NAMES), "grid-other111"))
    service.on(
        "GET",
        "/v1/workers",
        Answer(document=samples.workers(one, two, other)),
        Answer(document=samples.workers(two, other)),
        Answer(document=samples.workers(other)),
    )
    ran = ask("drain", "grid-aaaaaaaa", "grid-bbbbbbbb", "--wait")
    assert ran.code == 0
    assert lines(ran.stderr) == ["Draining: 2 workers left", "Draining: 1 worker left"]
    assert ran.stdout.strip() == "2 workers gone"


def test_drain_with_a_time_limit_leaves_the_order_standing(ask: Run, service: FakeService, clock: HandClock) -> None:
    drained(service)
    service.on("GET", "/v1/workers", Answer(document=samples.workers(samples.worker("grid-aaaaaaaa"))))
    ran = ask("drain", "grid-aaaaaaaa", "--wait", "--timeout", "3", "--json")
    assert ran.code == ExitCode.TIMED_OUT
    assert isinstance(ran.document, dict)
    assert "error" in ran.document


def test_force_asks_and_nobody_to_answer_means_no(ask: Run, service: FakeService) -> None:
    drained(service, force=True)
    ran = ask("drain", "grid-aaaaaaaa", "--force")
    assert ran.code == ExitCode.USAGE
    assert "--yes" in ran.error
    assert service.asked == []
    assert ask("drain", "grid-aaaaaaaa", "--force", "--yes").code == 0
    assert service.asked[0].body == {"workers": ["grid-aaaaaaaa"], "force": True}


@pytest.mark.parametrize(("word", "code"), [("y\n", 0), ("n\n", ExitCode.INTERRUPTED), ("\n", ExitCode.INTERRUPTED)])
def test_force_does_what_is_answered(
    ask: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch, word: str, code: int
) -> None:
    from gridtide.cli import asking

    monkeypatch.setattr(asking, "somebody_answers", lambda: True)
    drained(service, force=True)
    assert ask("drain", "grid-aaaaaaaa", "--force", answer=word).code == code
    assert len(service.asked) == (1 if code == 0 else 0)


def test_undrain(ask: Run, service: FakeService) -> None:
    service.on("POST", "/v1/workers/undrain", Answer(document={"workers": NAMES}))
    assert "taken back" in ask("undrain", "grid-aaaaaaaa", "grid-bbbbbbbb").stdout
    assert ask("undrain", "grid-aaaaaaaa", "--json").document == {"workers": NAMES}


def test_undrain_past_recall_is_a_conflict(ask: Run, service: FakeService) -> None:
    service.on("POST", "/v1/workers/undrain", refuse(409, "Conflict", "grid-aaaaaaaa is terminating"))
    assert ask("undrain", "grid-aaaaaaaa").code == ExitCode.CONFLICT


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (("--minimum", "2"), {"minimum": 2}),
        (("--minimum", "file", "--maximum", "9"), {"minimum": None, "maximum": 9}),
        (("--desired", "0"), {"desired": 0}),
        (("--desired", "auto", "--hold"), {"desired": None, "hold": True}),
        (("--release",), {"hold": False}),
    ],
)
def test_scale_sends_what_was_said_and_nothing_else(
    ask: Run, service: FakeService, options: tuple[str, ...], body: Json
) -> None:
    service.on("POST", "/v1/groups/grid/scale", Answer(document={"group": "grid"}))
    service.on("GET", "/v1/groups", Answer(document=samples.groups()))
    ran = ask("scale", "grid", *options)
    assert ran.code == 0
    assert service.asked[0].body == body
    assert lines(ran.stdout)[-1].startswith("grid")


def test_scale_without_options_only_looks(ask: Run, service: FakeService) -> None:
    service.on("GET", "/v1/groups", Answer(document=samples.groups()))
    ran = ask("scale", "grid", "--json")
    assert isinstance(ran.document, dict)
    assert (ran.document["name"], ran.document["maximum"]) == ("grid", 8)
    assert [one.method for one in service.asked] == ["GET"]
    assert ask("scale", "nobody").code == ExitCode.NOT_FOUND


def test_reload(ask: Run, service: FakeService) -> None:
    service.on("POST", "/v1/site/reload", Answer(document={"changed": "groups.grid.maximum: 8 -> 9"}))
    assert ask("reload").stdout.strip() == "groups.grid.maximum: 8 -> 9"
    assert ask("reload", "--json").document == {"changed": "groups.grid.maximum: 8 -> 9"}
    service.on("POST", "/v1/site/reload", refuse(400, "SiteFileError", "wrong", "site.toml:3:1"))
    assert ask("reload").code == ExitCode.DESCRIPTION


MADE: dict[str, Json] = {
    "id": "ab12",
    "user": "rosa",
    "role": "viewer",
    "created": samples.NOW,
    "expires": None,
    "revoked": False,
}


def test_a_token_is_shown_once(ask: Run, service: FakeService) -> None:
    service.on("POST", "/v1/tokens", Answer(201, {**MADE, "token": "gt_ab12.s3cret"}))
    ran = ask("token", "create", "rosa", "--role", "viewer", "--expires-in", "2h")
    assert ran.stdout == "gt_ab12.s3cret\n"
    assert service.asked[0].body == {"user": "rosa", "role": "viewer", "expires_in": 7200.0}
    assert ask("token", "create", "rosa", "--json").document == {**MADE, "token": "gt_ab12.s3cret"}


def test_a_token_can_go_straight_into_a_private_file(ask: Run, service: FakeService, tmp_path: Path) -> None:
    service.on("POST", "/v1/tokens", Answer(201, {**MADE, "token": "gt_ab12.s3cret"}))
    ran = ask("token", "create", "rosa", "--to", "rosa.token", "--json")
    assert ran.document == {**MADE, "file": "rosa.token"}
    path = tmp_path / "rosa.token"
    assert path.read_text() == "gt_ab12.s3cret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ask("token", "create", "rosa", "--to", "rosa.token").code == ExitCode.USAGE
    assert len(service.asked) == 1  # no token is made that could not be kept


def test_a_refused_token_leaves_no_file(ask: Run, service: FakeService, tmp_path: Path) -> None:
    service.on("POST", "/v1/tokens", refuse(403, "AccessDenied"))
    assert ask("token", "create", "rosa", "--to", "rosa.token").code == ExitCode.REFUSED
    assert not (tmp_path / "rosa.token").exists()


def test_tokens_are_listed_without_secrets(ask: Run, service: FakeService) -> None:
    rows: list[Json] = [
        samples.token("valid1", expires=samples.NOW + 90_000),
        samples.token("old1", expires=samples.NOW - 1),
        samples.token("bad1", revoked=True),
    ]
    service.on("GET", "/v1/tokens", Answer(document={"tokens": rows}))
    found = {line.split()[0]: line for line in lines(ask("token", "list").stdout)}
    assert "in 1 d" in found["valid1"]
    assert found["valid1"].endswith("valid")
    assert found["old1"].endswith("expired")
    assert found["bad1"].endswith("revoked")
    assert ask("token", "list", "--json").document == {"tokens": rows}


def test_revoke(ask: Run, service: FakeService) -> None:
    service.on("DELETE", "/v1/tokens/ab12", Answer(204))
    assert "ab12" in ask("token", "revoke", "ab12").stdout
    assert ask("token", "revoke", "ab12", "--json").document == {"revoked": "ab12"}


def test_drain_by_names_gives_up_what_is_lost(ask: Run, service: FakeService) -> None:
    drained(service)
    one, two = (samples.worker(str(name), WorkerState.DRAINING) for name in NAMES)
    silent = Reason(Cause.SILENT, "not heard of for 700 s")
    service.on(
        "GET",
        "/v1/workers",
        Answer(document=samples.workers(one, two, why=silent)),
        Answer(document=samples.workers(two, why=silent)),
    )
    ran = ask("drain", "--names", "grid-aaaaaaaa, grid-bbbbbbbb", "--wait", "--failures", "3", "--json")
    assert ran.code == ExitCode.FAILED
    assert ran.document == {"gone": ["grid-aaaaaaaa"], "given_up": {"grid-bbbbbbbb": "not heard of for 700 s"}}
    assert service.asked[0].body == {"workers": NAMES, "force": False}


def test_drain_of_nobody_is_wrong_usage(ask: Run, service: FakeService) -> None:
    ran = ask("drain")
    assert (ran.code, service.asked) == (ExitCode.USAGE, [])

"""The gate: lines, tokens, caches, and what happens to those who guess."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gridtide.service import access
from gridtide.service.access import FAILURES, FORGIVENESS, FailureLimit
from gridtide.service.settings import ServiceSettings
from gridtide.service.tokens import Token, TokenKind, digest_of, new_user_token, parse
from gridtide.store.ports import AccessToken, Role
from tests.unit.service.site import Site, make_site

VERSION = "/v1/version"


@given(st.text())
def test_whatever_is_parsed_is_what_was_sent(text: str) -> None:
    token = parse(text)
    assert token is None or token.reveal() == text


@given(st.sampled_from(TokenKind), st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_every_token_is_parsed_as_its_kind_and_never_printed(kind: TokenKind, name: str) -> None:
    token = Token(kind, name, "S" * 43)  # no name holds capitals
    assert parse(token.reveal()) == token
    assert "SSS" not in repr(token)


def test_a_new_token_is_kept_as_a_digest_only() -> None:
    token, kept = new_user_token("anna", Role.VIEWER, now=5.0, expires=9.0)
    assert kept == AccessToken(token.name, "anna", Role.VIEWER, digest_of(token.secret), 5.0, 9.0)
    assert len(token.secret) == 43
    assert token.secret not in repr(kept)
    assert new_user_token("anna", Role.VIEWER, now=5.0)[0].secret != token.secret


async def test_unknown_id_and_wrong_secret_get_the_same_answer(site: Site) -> None:
    good = site.tokens[Role.VIEWER]
    wrong = good[:-3] + ("AAA" if not good.endswith("AAA") else "BBB")
    unknown = "gt_ffffffffffff." + good.partition(".")[2]
    async with site.client(good) as client:
        assert (await client.get(VERSION)).status_code == 200
    answers = []
    for token in (wrong, unknown):
        async with site.client(token) as client:
            answers.append(await client.get(VERSION))
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].content == answers[1].content
    assert "AAA" not in answers[0].text


async def test_a_wrong_secret_costs_a_look_up_like_an_unknown_id(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = site.tokens[Role.VIEWER]
    asked: list[str] = []
    real = site.control.store.token

    async def counted(token_id: str) -> AccessToken | None:
        asked.append(token_id)
        return await real(token_id)

    monkeypatch.setattr(site.control.store, "token", counted)
    async with site.client(good) as client:
        await client.get(VERSION)
        await client.get(VERSION)
        assert len(asked) == 1, "a good token is looked up once"
        site.clock.time += access.USER_CACHE + 1
        await client.get(VERSION)
        assert len(asked) == 2, "and again when the cache is old"
    async with site.client(good[:-3] + "???".replace("?", "A" if good[-1] != "A" else "B")) as client:
        await client.get(VERSION)
    async with site.client("gt_ffffffffffff." + "A" * 43) as client:
        await client.get(VERSION)
    assert len(asked) == 4


async def test_guessing_is_slowed_and_good_tokens_still_pass(site: Site) -> None:
    bad = "gt_ffffffffffff." + "A" * 43
    async with site.client(bad) as guesser, site.client(site.tokens[Role.VIEWER]) as good:
        statuses = [(await guesser.get(VERSION)).status_code for _ in range(FAILURES + 5)]
        assert statuses == [401] * FAILURES + [429] * 5
        answer = await guesser.get(VERSION)
        assert int(answer.headers["retry-after"]) == round(1 / FORGIVENESS)
        assert (await good.get(VERSION)).status_code == 200, "the same address, a good token"
        async with site.client(bad, peer="192.0.2.7", url="https://site") as other:
            assert (await other.get(VERSION)).status_code == 401, "another address has its own limit"
        site.clock.time += 1 / FORGIVENESS
        assert (await guesser.get(VERSION)).status_code == 401
        assert (await guesser.get(VERSION)).status_code == 429


async def test_bad_join_tokens_count_too(site: Site) -> None:
    site.join_tokens["grid-1"] = "gtj_grid-1." + "A" * 43
    statuses = [(await site.join()).status_code for _ in range(FAILURES + 1)]
    assert statuses == [401] * FAILURES + [429]


def test_peers_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PEERS", 3)
    limit = FailureLimit()
    for _ in range(FAILURES):
        assert limit.note("a", 0.0) is None
    assert limit.note("a", 0.0) == pytest.approx(1 / FORGIVENESS)
    for peer in "bcd":
        limit.note(peer, 0.0)
    assert limit.note("a", 0.0) is None, "forgotten, as the one that failed longest ago"


@pytest.mark.parametrize(
    ("peer", "url", "status"),
    [
        ("127.0.0.1", "http://site", 200),
        ("127.8.8.8", "http://site", 200),
        ("::1", "http://site", 200),
        ("::ffff:127.0.0.1", "http://site", 200),
        ("192.0.2.7", "https://site", 200),
        ("192.0.2.7", "http://site", 400),
        ("10.0.2.2", "http://site", 400),
        ("::ffff:192.0.2.7", "http://site", 400),
        ("fe80::1%eth0", "http://site", 400),
        ("testclient", "http://site", 400),
    ],
)
async def test_a_token_over_plain_http_is_for_loopback_only(site: Site, peer: str, url: str, status: int) -> None:
    async with site.client(site.tokens[Role.VIEWER], peer=peer, url=url) as client:
        answer = await client.get(VERSION)
    assert answer.status_code == status
    if status == 400:
        assert "plain HTTP" in answer.json()["error"]["what"]
        assert "https://" in answer.json()["error"]["remedy"]


async def test_forwarded_headers_of_just_anybody_are_ignored(site: Site) -> None:
    lies = {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https"}
    async with site.client(site.tokens[Role.VIEWER], peer="192.0.2.7") as client:
        assert (await client.get(VERSION, headers=lies)).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}, 200),
        ({"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "http"}, 400),
        ({"x-forwarded-for": "127.0.0.1, 203.0.113.9", "x-forwarded-proto": "http"}, 400),
        ({"x-forwarded-for": "203.0.113.9"}, 400),
        ({}, 200),
    ],
)
async def test_a_trusted_proxy_is_believed(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    settings = ServiceSettings("torino", trusted_proxies=frozenset({"127.0.0.1"}))
    site = await make_site(tmp_path, settings=settings, aliec2=False)
    async with site.client(site.tokens[Role.VIEWER]) as client:
        assert (await client.get(VERSION, headers=headers)).status_code == status


async def test_a_revocation_during_a_look_up_wins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = parse(site.tokens[Role.VIEWER])
    assert token is not None
    real = site.control.store.token

    async def slow(token_id: str) -> AccessToken | None:
        found = await real(token_id)
        site.app.state.service.gate.revoked(token_id)
        return found

    monkeypatch.setattr(site.control.store, "token", slow)
    async with site.client(token.reveal()) as client:
        assert (await client.get(VERSION)).status_code == 401
        monkeypatch.undo()
        assert (await client.get(VERSION)).status_code == 401


async def test_an_unexpected_failure_is_a_number_to_the_client_and_a_trace_to_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> object:
        secret_of_a_frame = "hush-" + "x"
        raise RuntimeError(f"database at /var/lib/place is broken {len(secret_of_a_frame)}")

    monkeypatch.setattr(site.control.store, "wishes", broken)
    with structlog.testing.capture_logs() as logs:
        async with site.client(site.tokens[Role.VIEWER]) as client:
            answer = await client.get("/v1/status")
    (line,) = logs
    assert answer.status_code == 500
    assert line["incident"] in answer.json()["error"]["what"]
    assert "/var/lib" not in answer.text
    assert "Traceback" not in answer.text
    assert "RuntimeError: database at /var/lib/place is broken 6" in line["failure"]
    assert "hush-x" not in str(line)
    assert site.tokens[Role.VIEWER] not in str(line)

"""Tokens as HTCondor makes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from gridtide.errors import QueueError
from gridtide.queues.htcondor.tokens import SigningKey, masked, mint, read_signing_key, worker_key


def parts(token: str) -> tuple[dict[str, object], dict[str, object]]:
    head, body, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(each + "==")) for each in (head, body))


def test_a_token_says_who_signed_it_for_whom_and_for_what() -> None:
    key = SigningKey("gridtide", b"secret")
    head, body = parts(
        mint(key, issuer="pool.test", subject="w@gridtide", scopes=("READ", "WRITE"), issued=100.5, life=60)
    )
    assert head == {"alg": "HS256", "kid": "gridtide"}
    assert {name: body[name] for name in ("iss", "sub", "scope", "iat", "exp")} == {
        "iss": "pool.test",
        "sub": "w@gridtide",
        "scope": "condor:/READ condor:/WRITE",
        "iat": 100,
        "exp": 160,
    }


def test_the_signature_is_htcondors() -> None:
    """HKDF-SHA256 by its definition (RFC 5869), one block; the key called POOL counts twice."""
    for name, secret in (("gridtide", b"secret"), ("POOL", b"secretsecret")):
        token = mint(SigningKey(name, b"secret"), issuer="i", subject="s", scopes=("READ",), issued=0, life=1)
        extracted = hmac.new(b"htcondor", secret, hashlib.sha256).digest()
        signing = hmac.new(extracted, b"master jwt\x01", hashlib.sha256).digest()
        signed, _, signature = token.rpartition(".")
        wanted = base64.urlsafe_b64encode(hmac.new(signing, signed.encode(), hashlib.sha256).digest())
        assert signature.encode() == wanted.rstrip(b"=")


def test_a_key_file_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "gridtide"
    path.write_bytes(
        bytes(value ^ mask for value, mask in zip(b"0123456789abcdef", b"\xde\xad\xbe\xef" * 4, strict=True))
    )
    key = read_signing_key(path)
    assert (key.name, key.secret) == ("gridtide", b"0123456789abcdef")
    assert key.file_content() == path.read_bytes()
    assert masked(masked(b"anything")) == b"anything"
    assert "0123" not in repr(key)


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_what_is_no_key_is_told_with_its_place(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "POOL"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QueueError, match="POOL"):
        read_signing_key(path)


def test_each_worker_has_a_key_that_follows_from_the_sites() -> None:
    site, other = SigningKey("gridtide", b"one"), SigningKey("gridtide", b"two")
    assert worker_key(site, "w-1") == worker_key(site, "w-1")
    assert len({worker_key(key, name).secret for key in (site, other) for name in ("w-1", "w-2")}) == 4
    assert worker_key(site, "w-1").name == "gridtide-w-1"
    assert worker_key(site, "w-1").file_text().isascii()

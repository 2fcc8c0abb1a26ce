"""IDTOKENS: HTCondor's own JSON web tokens, signed with a key of the pool.

The rules are HTCondor's (manual, "Token Authentication"; ``condor_auth_passwd.cpp`` and ``store_cred.cpp`` for what the
manual leaves out): the key file is masked with four known bytes; the key called POOL counts twice in a row; the key of
the signature is HKDF-SHA256 of that, with salt ``htcondor`` and info ``master jwt``; the algorithm is HS256; a
``scope`` bounds what the bearer may do whatever the pool's lists allow.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gridtide.errors import QueueError

_MASK: Final = bytes.fromhex("deadbeef")
POOL: Final = "POOL"
"""The name of the key that every pool has."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that an HTCondor daemon trusts, by the name of its file in ``passwords.d``."""

    name: str
    secret: bytes = field(repr=False)
    """Unmasked."""

    def file_content(self) -> bytes:
        """What stands in the file."""
        return masked(self.secret)

    def file_text(self) -> str:
        """The same as text. ValueError for a key that is none."""
        return self.file_content().decode("ascii")


def masked(data: bytes) -> bytes:
    """Masked or unmasked, which is the same operation: it hides a key from a glance, not from a reader."""
    return bytes(byte ^ _MASK[position % len(_MASK)] for position, byte in enumerate(data))


def read_signing_key(path: Path) -> SigningKey:
    """The key in this file, named like the file. QueueError when it cannot be read or is too short to be one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QueueError(
            f"the signing key cannot be read: {error.strerror}",
            where=str(path),
            remedy="make it readable for this user",
        ) from None
    if len(content) < 16:
        raise QueueError(
            f"{len(content)} bytes are no signing key",
            where=str(path),
            remedy="make one with condor_store_cred add-key",
        )
    return SigningKey(path.name, masked(content))


def worker_key(site: SigningKey, worker: str) -> SigningKey:
    """The key that one worker's daemons trust, and no other: derived, so that nobody has to keep it."""
    secret = hmac.new(site.secret, f"gridtide worker key of {worker}".encode(), hashlib.sha256).hexdigest()
    # The masked form is printable, so that it travels as text: the mask is taken off to get what is signed with.
    return SigningKey(f"gridtide-{worker}", masked(secret.encode()))


def mint(key: SigningKey, *, issuer: str, subject: str, scopes: Sequence[str], issued: float, life: float) -> str:
    """A token. ``issuer`` is the pool's trust domain, ``scopes`` are names like READ; ``life`` is in seconds."""
    head = {"alg": "HS256", "kid": key.name}
    body = {
        "exp": int(issued + life),
        "iat": int(issued),
        "iss": issuer,
        "jti": secrets.token_hex(16),
        "scope": " ".join(f"condor:/{scope}" for scope in scopes),
        "sub": subject,
    }
    signed = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(body).encode())}"
    return f"{signed}.{_base64(hmac.new(_signature_key(key), signed.encode(), hashlib.sha256).digest())}"


def _signature_key(key: SigningKey) -> bytes:
    secret = key.secret * 2 if key.name == POOL else key.secret
    return HKDF(algorithm=SHA256(), length=32, salt=b"htcondor", info=b"master jwt").derive(secret)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

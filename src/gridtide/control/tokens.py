"""Secrets of workers: made here, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from random import Random

from gridtide.model.ids import GroupName, WorkerId

MakeSecret = Callable[[], str]

# No vowels and no look-alikes: ids are read aloud, and none of them should be a word.
_ALPHABET = "23456789bcdfghjkmnpqrstvwxz"
_LETTERS = 8


def make_secret() -> str:
    """256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """SHA-256: the secrets are random and long, so a slow hash would only slow us down."""
    return hashlib.sha256(secret.encode()).digest()


def same(secret: str, stored: bytes) -> bool:
    """Constant-time."""
    return hmac.compare_digest(digest(secret), stored)


def join_token(worker: WorkerId, secret: str) -> str:
    """As it rides in the context."""
    return f"gtj_{worker}.{secret}"


def new_worker_id(group: GroupName, random: Random) -> WorkerId:
    """A legal host name that starts with its group: ``grid-k3v9q2zb``. 2.8e11 of them per group."""
    return WorkerId(f"{group}-" + "".join(random.choices(_ALPHABET, k=_LETTERS)))

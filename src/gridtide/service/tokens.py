"""What tokens look like, and what is kept of them.

Three kinds, told apart by their prefix so that one can never be used for another: ``gt_ID.SECRET`` (users),
``gtj_WORKER.SECRET`` (join), ``gtw_WORKER.SECRET`` (workers). SECRET is 32 random bytes, URL-safe base64.
Only the SHA-256 of SECRET is kept; that is enough, because 256 random bits cannot be guessed from it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gridtide.store.ports import AccessToken, Role


class TokenKind(StrEnum):
    """The prefix says what a token is for."""

    USER = "gt"
    JOIN = "gtj"
    WORKER = "gtw"


_TOKEN: Final = re.compile(r"(gt|gtj|gtw)_([a-z0-9][a-z0-9-]{0,62})\.([A-Za-z0-9_-]{32,128})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as presented. ``name`` is a token id or a worker id."""

    kind: TokenKind
    name: str
    secret: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """What is kept of the secret."""
        return digest_of(self.secret)

    def reveal(self) -> str:
        """The token as it is sent. The only way to its text: never for logs, events or exceptions."""
        return f"{self.kind}_{self.name}.{self.secret}"


def digest_of(secret: str) -> bytes:
    """SHA-256 of the part after the dot."""
    return hashlib.sha256(secret.encode()).digest()


def parse(text: str) -> Token | None:
    """None when it is no token at all."""
    match = _TOKEN.fullmatch(text)
    return Token(TokenKind(match[1]), match[2], match[3]) if match else None


def new_secret() -> str:
    """32 random bytes in 43 characters."""
    return secrets.token_urlsafe(32)


def new_user_token(user: str, role: Role, *, now: float, expires: float | None = None) -> tuple[Token, AccessToken]:
    """A new token: the first to show once to its user, the second to keep."""
    token = Token(TokenKind.USER, secrets.token_hex(6), new_secret())
    kept = AccessToken(id=token.name, user=user, role=role, digest=token.digest, created=now, expires=expires)
    return token, kept

"""The gate: who sends a request, and whether the route is for them.

Checked in this order: the line (a token over plain HTTP from elsewhere is refused), the token, the audience of the
route. Nothing of a body is read before.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from gridtide.clock import Clock
from gridtide.control.api import SiteControl
from gridtide.errors import AccessDenied, InvalidRequest
from gridtide.model.ids import WorkerId
from gridtide.service.answers import BadToken, TryLater
from gridtide.service.roles import MAY, Audience
from gridtide.service.tokens import Token, TokenKind, parse
from gridtide.store.ports import AccessToken, Role

USER_CACHE: Final = 5.0
"""Seconds for which a user token that was found good is not looked up again: how long another process's revocation
may go unseen here."""
WORKER_CACHE: Final = 3600.0
"""The same for worker tokens. May be long: a worker that is gone is refused at once, and its token never changes.
Shorter costs a look-up for each worker so often: at 300 s, 33 a second for 10 000 of them."""
CACHED: Final = 20_000
"""Entries per cache; twice the workers of the largest site. A full cache is emptied, which costs look-ups only."""
FAILURES: Final = 20
"""Bad tokens in a row that a peer may send before it is told to wait."""
FORGIVENESS: Final = 0.2
"""Failures forgiven per second: a peer above its limit gets one plain 401 every five seconds."""
PEERS: Final = 10_000
"""Peers remembered; the one that failed longest ago is forgotten first."""

_NOBODY: Final = secrets.token_bytes(32)
"""Compared with when there is no such token, so that an unknown id takes as long as a wrong secret."""


@dataclass(frozen=True, slots=True)
class User:
    """A caller with a user token."""

    name: str
    role: Role
    token_id: str

    @property
    def actor(self) -> str:
        """As events name it."""
        return f"user:{self.name}"

    @property
    def sees_all(self) -> bool:
        """Whether other people's jobs are its business."""
        return self.role in (Role.OPERATOR, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class CallingWorker:
    """A caller with a worker token."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Joining:
    """A machine with a join token, which only the store can judge."""

    worker: WorkerId
    secret: str = field(repr=False)


Caller = User | CallingWorker | Joining | None


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the line, as far as it can be believed."""

    address: str
    encrypted: bool
    loopback: bool


class FailureLimit:
    """A leaky bucket of bad tokens per peer. It slows guessing and never stops a good token."""

    def __init__(self) -> None:
        self._level: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def note(self, peer: str, now: float) -> float | None:
        """Count one; returns seconds to wait when there are too many, None while there are not."""
        level, at = self._level.pop(peer, (0.0, now))
        level = max(0.0, level - (now - at) * FORGIVENESS)
        over = level + 1.0 > FAILURES
        self._level[peer] = (level if over else level + 1.0, now)
        while len(self._level) > PEERS:
            self._level.popitem(last=False)
        return (level + 1.0 - FAILURES) / FORGIVENESS if over else None


@dataclass(frozen=True, slots=True)
class _Held:
    token: AccessToken
    until: float


class Gate:
    """Judges requests. Holds caches only: everything it knows can be asked again."""

    def __init__(self, control: SiteControl, clock: Clock, trusted_proxies: frozenset[str]) -> None:
        self._control = control
        self._clock = clock
        self._trusted = trusted_proxies
        self._limit = FailureLimit()
        self._users: dict[str, _Held] = {}
        self._workers: dict[WorkerId, tuple[bytes, float]] = {}
        self._revoked: set[str] = set()
        self.failures = 0
        """Bad tokens since the start, for the metrics."""

    def revoked(self, token_id: str) -> None:
        """Believe this token no more, at once, even when a look-up of it is under way."""
        self._revoked.add(token_id)
        self._users.pop(token_id, None)

    async def admit(self, request: Request, audience: Audience) -> Caller:
        """Who it is. BadToken, AccessDenied (wrong role), InvalidRequest (plain HTTP), TryLater (too many failures)."""
        peer = self.peer(request)
        authorization = request.headers.get("authorization")
        if authorization is not None and not (peer.encrypted or peer.loopback):
            raise InvalidRequest(
                f"a token was sent over plain HTTP from {peer.address}",
                remedy="use https://, and have this token revoked: others may have read it",
            )
        if audience is Audience.ANYBODY:
            return None
        token = _presented(authorization, basic=audience is Audience.ALIEC2)
        try:
            return await self._judge(token, audience)
        except BadToken:
            self.count_failure(peer)
            raise

    def count_failure(self, peer: Peer) -> None:
        """Note a bad token. TryLater when the peer has sent too many."""
        self.failures += 1
        wait = self._limit.note(_network(peer.address), self._clock.now())
        if wait is not None:
            raise TryLater("too many bad tokens came from this address", retry_after=wait, status=429)

    async def _judge(self, token: Token | None, audience: Audience) -> Caller:
        wanted = _KINDS.get(audience, TokenKind.USER)
        if token is None or token.kind is not wanted:
            raise _bad(wanted)
        if token.kind is TokenKind.JOIN:
            return Joining(WorkerId(token.name), token.secret)
        if token.kind is TokenKind.WORKER:
            return await self._worker(token)
        kept = await self._user(token)
        if kept.role not in MAY[audience]:
            allowed = ", ".join(sorted(MAY[audience]))
            raise AccessDenied(f"role {kept.role} may not do this", remedy=f"it takes a token of role {allowed}")
        return User(kept.user, kept.role, kept.id)

    async def _user(self, token: Token) -> AccessToken:
        now = self._clock.now()
        digest = token.digest
        held = self._users.get(token.name)
        # A wrong secret never meets the cache: it goes to the store like an unknown id does.
        if held is not None and held.until > now and hmac.compare_digest(held.token.digest, digest):
            kept = held.token
        else:
            found = await self._control.store.token(token.name)
            same = hmac.compare_digest(found.digest if found is not None else _NOBODY, digest)
            if found is None or not same or found.revoked:
                raise _bad(TokenKind.USER)
            kept = found
            if len(self._users) >= CACHED:
                self._users.clear()
            self._users[token.name] = _Held(kept, now + USER_CACHE)
        if token.name in self._revoked or (kept.expires is not None and kept.expires <= now):
            raise _bad(TokenKind.USER)
        return kept

    async def _worker(self, token: Token) -> CallingWorker:
        worker = WorkerId(token.name)
        digest = token.digest
        if not self._remembers(worker, digest):
            try:
                await self._control.check_worker(worker, token.secret)
            except AccessDenied:
                raise _bad(TokenKind.WORKER) from None
            self.remember(worker, digest)
        return CallingWorker(worker)

    def known_worker(self, request: Request) -> WorkerId | None:
        """Who sends this, where it is plain without a look-up: a good worker token, over a good line."""
        peer = self.peer(request)
        token = _presented(request.headers.get("authorization"), basic=False)
        if token is None or token.kind is not TokenKind.WORKER or not (peer.encrypted or peer.loopback):
            return None
        worker = WorkerId(token.name)
        return worker if self._remembers(worker, token.digest) else None

    def remember(self, worker: WorkerId, digest: bytes) -> None:
        """This is the digest of the worker's token, the store says."""
        if len(self._workers) >= CACHED:
            self._workers.clear()
        self._workers[worker] = (digest, self._clock.now() + WORKER_CACHE)

    def _remembers(self, worker: WorkerId, digest: bytes) -> bool:
        held = self._workers.get(worker)
        if held is None or held[1] <= self._clock.now() or not hmac.compare_digest(held[0], digest):
            return False
        if worker not in self._control.workers:
            del self._workers[worker]
            return False
        return True

    def peer(self, request: Request) -> Peer:
        """The peer; what a trusted proxy says of it counts, what anybody else says does not."""
        address = request.client.host if request.client is not None else "an unknown address"
        encrypted = request.scope["scheme"] == "https"
        if address in self._trusted:
            hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
            outside = [hop for hop in hops if hop not in self._trusted]
            address = outside[-1] if outside else address
            encrypted = request.headers.get("x-forwarded-proto", "").strip().lower() == "https"
        return Peer(address, encrypted, _is_loopback(address))


_KINDS: Final = {Audience.MACHINE: TokenKind.JOIN, Audience.WORKER: TokenKind.WORKER}


def _bad(kind: TokenKind) -> BadToken:
    return BadToken(f"a good token of the form {kind}_NAME.SECRET is needed", remedy="send Authorization: Bearer TOKEN")


def _presented(authorization: str | None, *, basic: bool) -> Token | None:
    """The token of the header; as the password of HTTP Basic where scripts have it in a URL's userinfo."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return parse(value.strip())
    if basic and scheme.lower() == "basic":
        try:
            return parse(base64.b64decode(value.strip(), validate=True).decode("ascii").partition(":")[2])
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


@functools.lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _network(address: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 that one IPv6 host usually has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address

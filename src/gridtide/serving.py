"""Where the service listens, how workers and the operators' own command reach it, and with what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from gridtide.cli.locate import TOKEN_FILE, ServiceFile, process_started, read_service_file, write_service_file
from gridtide.clock import Clock, SystemClock
from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import GridtideError, SiteFileError, StoreError
from gridtide.service.certificates import ServerTls
from gridtide.service.server import bind
from gridtide.service.tokens import TokenKind, new_user_token, parse
from gridtide.site.models import CertificateFiles
from gridtide.site.site import Site
from gridtide.store.ports import FleetStore, Role

_REACH_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket and what it is called from outside."""

    bound: socket.socket
    tls: ServerTls | None
    url: str
    """What workers and users call."""
    instead_of: int | None = None
    """The port that living workers know, where another program has it."""

    @property
    def authority(self) -> str | None:
        """PEM of what a worker must trust; None on plain loopback, or when the system's authorities do."""
        return None if self.tls is None else self.tls.authority

    def close(self) -> None:
        """Free the port."""
        self.bound.close()


def listen(site: Site, clock: Clock) -> Listener:
    """Bind the site's address. SiteFileError when it, or the certificate, cannot be had."""
    tls = server_tls(site, clock)
    host, port = site.service.listen.host, site.service.listen.port
    before = _port_before(site) if port == 0 else None
    bound = _bind_again(host, before) if before is not None else None
    missed = before if bound is None else None
    bound = bind(host, port) if bound is None else bound
    return Listener(bound, tls, site.service.url_on(bound.getsockname()[1]), missed)


def _bind_again(host: str, port: int) -> socket.socket | None:
    """The port that the kernel chose at the last start is kept if it can be had: workers that live know no other."""
    try:
        return bind(host, port)
    except SiteFileError:
        return None


def _port_before(site: Site) -> int | None:
    with contextlib.suppress(GridtideError, ValueError):
        before = read_service_file(site.state)
        return None if before is None else urlsplit(before.url).port
    return None


def server_tls(site: Site, clock: Clock) -> ServerTls | None:
    """The site's own certificate, or one by its own authority; None for plain HTTP on loopback."""
    if not site.service.encrypted:
        return None
    host = urlsplit(site.service.url_on(site.service.listen.port)).hostname or site.service.listen.host
    names = sorted({host, "localhost", "127.0.0.1"} if site.service.listen.everywhere else {host})
    given = site.service.tls
    if isinstance(given, CertificateFiles):
        return ServerTls.of_files(given.certificate, given.key, authority=given.authority, names=[host], clock=clock)
    return ServerTls.of_site(site.state / "tls", site=site.name, names=names, clock=clock)


async def hand_over(site: Site, listener: Listener, store: FleetStore, clock: Clock) -> None:
    """Leave address and administrator's token in the state directory, for ``gridtide`` run by the same user."""
    file = site.state / TOKEN_FILE
    if not await _still_good(await asyncio.to_thread(_read, file), store):
        token, kept = new_user_token("admin", Role.ADMIN, now=clock.now())
        await store.add_token(kept)
        await asyncio.to_thread(_write_private, file, token.reveal() + "\n")
    process = os.getpid()
    service = ServiceFile(listener.url, listener.authority, process, process_started(process))
    write_service_file(site.state, service)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


async def _still_good(text: str, store: FleetStore) -> bool:
    token = parse(text)
    if token is None or token.kind is not TokenKind.USER:
        return False
    kept = await store.token(token.name)
    return kept is not None and not kept.revoked and kept.digest == token.digest


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by this user only."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as sink:
        sink.write(text)
    written.replace(path)


# --- gridtide check


async def check_service(site: Site) -> Sequence[Finding]:
    """Whether the service could listen, and whether a worker could call it back."""
    try:
        listener = await asyncio.to_thread(listen, site, SystemClock())
    except GridtideError as error:
        running = await _answers(site)
        return [running] if running is not None else [Finding("service", Level.ERROR, str(error), error.remedy)]
    try:
        found = [Finding("service", Level.OK, f"it can listen on {site.service.listen}, workers call {listener.url}")]
        return [*found, await _called_back(listener)]
    finally:
        listener.close()


async def _answers(site: Site) -> Finding | None:
    """The address is taken: by this very service?"""
    url = site.service.url_on(site.service.listen.port)
    try:
        async with httpx.AsyncClient(verify=False, timeout=_REACH_PATIENCE) as client:  # noqa: S501  (no token is sent)
            answer = await client.get(f"{url}/healthz")
    except httpx.HTTPError:
        return None
    if answer.status_code != httpx.codes.OK:
        return None
    return Finding("service", Level.OK, f"it runs already and answers at {url}")


async def _called_back(listener: Listener) -> Finding:
    """Connect to the address that workers are told, as a worker on this machine would."""
    parts = urlsplit(listener.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_REACH_PATIENCE):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        return Finding(
            "call back",
            Level.ERROR,
            f"a worker could not reach {listener.url}: {error or 'no answer'}",
            "set service.url to an address that workers can call",
        )
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Finding("call back", Level.OK, f"a worker on this machine reaches {listener.url}")


async def check_store_answers(store: FleetStore) -> Finding:
    """Whether the store can be read at all."""
    try:
        lease = await store.current_lease()
    except StoreError as error:
        return Finding("store", Level.ERROR, str(error), error.remedy)
    leader = "" if lease is None else f"; last led by process {lease.owner.process} on {lease.owner.host}"
    return Finding("store", Level.OK, f"it answers{leader}")

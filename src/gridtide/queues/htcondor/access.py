"""Who we are in the pool: the configuration and the token of the asking process, in files that only we can read."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gridtide.clock import Clock
from gridtide.errors import QueueError
from gridtide.queues.htcondor.joining import CONTROLLER
from gridtide.queues.htcondor.tokens import SigningKey, mint, worker_key

SCOPES: Final = ("READ", "ADVERTISE_STARTD", "ADVERTISE_MASTER")
"""What we do in the pool: look, and take away the ads of machines that are gone. We cannot touch a job."""

ORDER_SCOPES: Final = ("CONFIG", "ADMINISTRATOR", "READ")
"""What we do in a worker of ours, with a token that no other daemon accepts."""

_LIFE: Final = 3600.0
"""Seconds. Tokens are for one site's own use: made anew long before, and of little worth when they leak."""
_ORDER_LIFE: Final = 120.0

_CONFIGURATION: Final = """\
# Written by Gridtide for the process that asks the pool. Changes are lost.
COLLECTOR_HOST = {collector}
CONDOR_HOST = {host}
TRUST_DOMAIN = {trust_domain}
UID_DOMAIN = gridtide
ENABLE_IPV6 = False
# Workers call back to a port of this process itself.
USE_SHARED_PORT = False
{interface}
SEC_TOKEN_DIRECTORY = {place}/tokens.d
SEC_PASSWORD_DIRECTORY = {place}/passwords.d
SEC_TOKEN_POOL_SIGNING_KEY_FILE = {place}/passwords.d/POOL
SEC_CLIENT_AUTHENTICATION = REQUIRED
SEC_CLIENT_ENCRYPTION = REQUIRED
SEC_CLIENT_INTEGRITY = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = IDTOKENS
SEC_CLIENT_AUTHENTICATION_METHODS = IDTOKENS
LOG = {place}
"""


@dataclass(frozen=True, slots=True)
class PoolPlace:
    """Where the pool is, as the site file says it."""

    collector: str
    """HOST:PORT."""
    trust_domain: str
    interface: str | None = None
    """Our own address that workers can call back to; None: HTCondor finds it."""
    ports: tuple[int, int] | None = None
    """The ports that workers may call back to; None: any."""


class Access:
    """``directory`` is ours alone."""

    def __init__(self, directory: Path, place: PoolPlace, key: SigningKey, clock: Clock) -> None:
        self._directory, self._place, self._key, self._clock = directory, place, key, clock
        self._renew_at = float("-inf")
        self.configuration = directory / "client.config"

    def prepare(self) -> None:
        """Have the files, with a token that is good for a while. QueueError when they cannot be written."""
        if self._clock.now() < self._renew_at:
            return
        interface = f"NETWORK_INTERFACE = {self._place.interface}" if self._place.interface else ""
        if self._place.ports is not None:
            interface += "\nLOWPORT = {}\nHIGHPORT = {}".format(*self._place.ports)
        text = _CONFIGURATION.format(
            collector=self._place.collector,
            host=self._place.collector.rpartition(":")[0],
            trust_domain=self._place.trust_domain,
            interface=interface,
            place=self._directory,
        )
        try:
            for name in ("tokens.d", "passwords.d"):
                (self._directory / name).mkdir(mode=0o700, exist_ok=True)
            _write(self.configuration, text)
            _write(self._directory / "tokens.d/pool", self._token(self._key, SCOPES, _LIFE) + "\n")
        except OSError as error:
            raise QueueError(f"cannot be written: {error.strerror}", where=str(self._directory)) from None
        self._renew_at = self._clock.now() + _LIFE / 2

    @contextlib.contextmanager
    def order_tokens(self, workers: Iterable[str]) -> Iterator[Path]:
        """A directory with our tokens for these workers' daemons, for as long as the block lasts.

        And with the one for the pool, whose collector brokers the connection.
        """
        place = Path(tempfile.mkdtemp(prefix="orders-", dir=self._directory))
        try:
            _write(place / "pool", self._token(self._key, SCOPES, _ORDER_LIFE) + "\n")
            for worker in workers:
                token = self._token(worker_key(self._key, worker), ORDER_SCOPES, _ORDER_LIFE)
                _write(place / worker, token + "\n")
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _token(self, key: SigningKey, scopes: tuple[str, ...], life: float) -> str:
        return mint(
            key,
            issuer=self._place.trust_domain,
            subject=CONTROLLER,
            scopes=scopes,
            issued=self._clock.now() - 60.0,  # clocks differ, and a token from the future is refused
            life=life + 60.0,
        )


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable for others."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def numeric(collector: str) -> str:
    """HOST:PORT with an IP address: workers may have no name service. QueueError when the name is not known."""
    host, _, port = collector.rpartition(":")
    try:
        ip_address(host)
    except ValueError:
        try:
            found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            raise QueueError(f"no address of {host} is known", where=collector) from None
        return f"{found[0][4][0]}:{port}"
    return collector

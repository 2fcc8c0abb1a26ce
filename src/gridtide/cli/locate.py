"""Where the service is and with which token it is spoken to.

In this order: what the user names (``--url``, ``--token-file``), the environment, the files that ``gridtide up`` keeps
in the site's state directory. A token never comes from the command line, where every user of the machine could read it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gridtide.cli.problems import NoService, WrongUsage
from gridtide.errors import AccessDenied, GridtideError, NotFound
from gridtide.processes import process_status

SERVICE_FILE: Final = "service.json"
TOKEN_FILE: Final = "admin.token"  # noqa: S105  (the name of the file)
LOG_FILE: Final = "gridtide.log"


@dataclass(frozen=True, slots=True)
class Address:
    """All that is needed to call a service. ``ca`` is a PEM text: the only authority believed; None: the system's."""

    url: str
    token: str | None = field(repr=False, default=None)
    ca: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """What a running ``gridtide up`` says of itself in ``service.json``."""

    url: str
    ca: str | None
    process: int | None
    started: int | None
    """The process's start time in clock ticks since boot: a number that was given to another process differs."""

    @property
    def alive(self) -> bool | None:
        """Whether that very process runs on this machine; None when the file does not say which it is."""
        if self.process is None or self.started is None:
            return None
        return process_started(self.process) == self.started


@dataclass(frozen=True, slots=True)
class Where:
    """The user's own words on where the service is."""

    site: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None

    def site_file(self) -> Path:
        """The site file meant. NotFound when there is none."""
        named = self.site or _from_environment("GRIDTIDE_SITE")
        chosen = Path(named) if named else Path("site.toml")
        if chosen.is_dir():
            chosen /= "site.toml"
        if not chosen.is_file():
            remedy = "`gridtide init` makes one; name another with --site or GRIDTIDE_SITE"
            raise NotFound("there is no site file", where=str(chosen), remedy=remedy)
        return chosen

    def address(self) -> Address:
        """Address and token. NoService, AccessDenied or WrongUsage."""
        url = self.url or _from_environment("GRIDTIDE_URL")
        token = self._token()
        if url is not None:
            ca = self.ca_file or _from_environment("GRIDTIDE_CA")
            return _checked(Address(url, token, _read(Path(ca)) if ca else None))
        try:
            state = state_directory(self.site_file())
        except NotFound as error:
            remedy = "go to the site's directory, or give --site FILE or --url URL"
            raise NoService("no service and no site file is known", where=error.where, remedy=remedy) from None
        service = read_service_file(state)
        if service is None:
            raise NoService(
                "no service has been started for this site",
                where=str(state / SERVICE_FILE),
                remedy="start it with `gridtide up`",
            )
        return _checked(Address(service.url, token or _own_token(state), service.ca))

    def _token(self) -> str | None:
        if self.token_file is not None:
            return _read_token(self.token_file)
        if token := _from_environment("GRIDTIDE_TOKEN"):
            return token.strip()
        named = _from_environment("GRIDTIDE_TOKEN_FILE")
        return _read_token(Path(named)) if named else None


def state_directory(site_file: Path) -> Path:
    """Where the site keeps its state. SiteFileError when the file does not tell."""
    from gridtide.site.loader import state_of

    return state_of(site_file)


def read_service_file(state: Path) -> ServiceFile | None:
    """What is known of the service of this state directory; None when it never ran here."""
    path = state / SERVICE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping):
            raise ValueError("not an object")
        url, ca = content["url"], content.get("ca")
        process, started = content.get("pid"), content.get("started")
    except FileNotFoundError:
        return None
    except PermissionError:
        raise AccessDenied("this user may not read it", where=str(path)) from None
    except (OSError, ValueError, KeyError) as error:
        raise NoService(f"cannot be read: {error}", where=str(path), remedy="start `gridtide up` again") from None
    if isinstance(ca, str) and not ca.startswith("-----BEGIN"):
        ca = _read(state / ca)
    return ServiceFile(
        str(url),
        ca if isinstance(ca, str) else None,
        process if isinstance(process, int) else None,
        started if isinstance(started, int) else None,
    )


def write_service_file(state: Path, service: ServiceFile) -> None:
    """Replace ``service.json`` as a whole: a reader meets the old file or the new one."""
    content = {"url": service.url, "ca": service.ca, "pid": service.process, "started": service.started}
    written = state / f".{SERVICE_FILE}.{os.getpid()}"
    written.write_text(json.dumps(content) + "\n", encoding="utf-8")
    written.replace(state / SERVICE_FILE)


def process_started(process: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none, or when it has ended."""
    try:
        found = process_status(process)
    except OSError:
        return None
    return None if found.ended else found.started


def _checked(address: Address) -> Address:
    """Refuse what would send a token in the clear over a network."""
    parts = urlsplit(address.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise WrongUsage("is no address of a service", where=address.url, remedy="write https://HOST:PORT")
    if parts.scheme == "http" and address.token is not None and not _is_loopback(parts.hostname):
        raise WrongUsage(
            "a token is not sent over plain HTTP to another machine", where=address.url, remedy="use https://"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_token(state: Path) -> str | None:
    """The administrator's token, when this user may read it; without it the service will say what it thinks."""
    path = state / TOKEN_FILE
    try:
        return _read_token(path)
    except GridtideError:
        return None


def _read_token(path: Path) -> str:
    token = _read(path).strip()
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise AccessDenied("other users can read this token", where=str(path), remedy=f"chmod 600 {path}")
    if not token or not token.isprintable() or not token.isascii() or " " in token:
        raise AccessDenied("does not hold one token", where=str(path))
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise WrongUsage(f"cannot be read: {reason}", where=str(path)) from None


def _from_environment(name: str) -> str | None:
    return os.environ.get(name) or None

"""What OpenNebula's refusals mean: error code and words -> type.

Codes are those of the API reference ("XML-RPC API"). A quota that is used up and a right that is missing share one of
them, so a few of OpenNebula's own sentences are looked for (src/um/Quota.cc, src/vmm; they have not changed in ten
years). What is not understood says nothing: CloudUnavailable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gridtide.clouds.refusals import Answered, MachineNotFound, NotAuthorized, PlainRefusal, wait_of
from gridtide.errors import (
    AuthenticationFailed,
    CloudError,
    CloudUnavailable,
    ImageNotFound,
    LaunchRejected,
    NoCapacity,
    QuotaExceeded,
    Throttled,
)


class WrongState(CloudUnavailable):
    """The machine is in a state in which this cannot be done to it (now)."""


class Refused(Exception):
    """An answer ``[false, words, code]``."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"error {code:#06x}")
        self.code = code
        self.words = words


class Fault(Exception):
    """The XML-RPC library of the server did not let the call through."""

    def __init__(self, code: int, method: str) -> None:
        super().__init__(f"XML-RPC fault {code}")
        self.code = code
        self.method = method


class Nonsense(Exception):
    """An answer that is not OpenNebula's, or was cut short, or that nobody should read."""


RENEW: Final = "renew the login token or the password in the credentials file: see docs/how-to/use-opennebula.md"
_QUOTA: Final = "ask for a higher quota, or set quota of the cloud"
_ENDPOINT: Final = "check endpoint: its path is mostly /RPC2"

AUTHENTICATION: Final = 0x0100
AUTHORIZATION: Final = 0x0200
NO_EXISTS: Final = 0x0400
ACTION: Final = 0x0800
RPC_API: Final = 0x1000
INTERNAL: Final = 0x2000
ALLOCATE: Final = 0x4000
LOCKED: Final = 0x8000
"""And 0x10000, that a cluster of controllers could not write it down; and what later versions may add."""

_NEVER_DONE: Final = frozenset({-501, -503, -506, -509})
"""Faults of xmlrpc-c (lib/util/xmlrpc-c/base.h): wrong types, not parsed, no such method, larger than is taken."""
_NO_SUCH_METHOD: Final = -506

_SCOPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "VMS": "machines",
        "RUNNING_VMS": "machines",
        "CPU": "cores",
        "RUNNING_CPU": "cores",
        "MEMORY": "memory",
        "RUNNING_MEMORY": "memory",
        "SYSTEM_DISK_SIZE": "disk",
        "LEASES": "addresses",
        "SIZE": "disk",
    }
)
"""OpenNebula's words for what we call otherwise."""
_QUOTA_WORDS: Final = re.compile(r"limit of \S+ reached for (\w+) quota", re.I)
_CAPACITY_WORDS: Final = re.compile(
    r"cannot get (?:ip|mac|free)|no free (?:ip|leases|address)|not enough (?:space|capacity)|no hosts? (?:enough|with)",
    re.I,
)
_IMAGE_WORDS: Final = re.compile(
    r"error getting image|does not own an? image|image .*(?:does not exist|not available|could not be acquired|in use)",
    re.I,
)
_LONG: Final = re.compile(r"[A-Za-z0-9+/=_-]{48,}")
"""What may be user-data, or a secret: never a word of a sentence."""
_WORDS: Final = 300
"""Characters of the cloud's own words that are passed on."""


def typed(error: Exception, where: str) -> CloudError:
    """Anything that a call can raise, as one of ours."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, Refused):
        return of_code(error.code, shortened(error.words), where)
    if isinstance(error, Fault):
        return _of_fault(error, where)
    if isinstance(error, PlainRefusal):
        return of_status(error.status, error.retry_after, where)
    if isinstance(error, Nonsense):
        return CloudUnavailable(f"the answer makes no sense: {shortened(str(error))}", where=where)
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "httpx":
        return CloudUnavailable(shortened(f"{type(error).__name__}: {error}"), where=where)
    # The text of an error of a parser may repeat what was parsed.
    return CloudUnavailable(f"the answer makes no sense ({type(error).__name__})", where=where)


def of_code(code: int, words: str, where: str) -> CloudError:
    """What an error code means, with the words that came with it."""
    what = f"{words} (error {code:#06x})" if words else f"OpenNebula answered error {code:#06x}"
    found = _QUOTA_WORDS.search(words)
    if found is not None and code in (AUTHORIZATION, ACTION, ALLOCATE):
        metric = found[1].upper()
        scope = _SCOPES.get(metric, metric.lower())
        return QuotaExceeded(what, scope=scope, where=where, remedy=_QUOTA)
    if code == AUTHENTICATION:
        return AuthenticationFailed(what, where=where, remedy=RENEW)
    if code == AUTHORIZATION:
        return NotAuthorized(what, where=where, remedy="give this user the right, or use another one")
    if code == NO_EXISTS:
        return ImageNotFound(what, where=where) if _IMAGE_WORDS.search(words) else MachineNotFound(what, where=where)
    if code == ACTION:
        return WrongState(what, where=where)
    if code == ALLOCATE:
        return _of_allocation(words, what, where)
    if code == RPC_API:
        return LaunchRejected(what, where=where)
    if code in (INTERNAL, LOCKED):
        return Answered(what, where=where)
    return CloudUnavailable(what, where=where)


def _of_allocation(words: str, what: str, where: str) -> CloudError:
    if _IMAGE_WORDS.search(words):
        return ImageNotFound(what, where=where)
    if _CAPACITY_WORDS.search(words):
        return NoCapacity(what, where=where)
    return LaunchRejected(what, where=where)


def _of_fault(fault: Fault, where: str) -> CloudError:
    if fault.code == _NO_SUCH_METHOD:
        what = f"it has no method one.{fault.method}"
        return LaunchRejected(what, where=where, remedy="OpenNebula 5.12 or newer is needed")
    what = f"it did not take the call ({fault})"
    return LaunchRejected(what, where=where) if fault.code in _NEVER_DONE else CloudUnavailable(what, where=where)


def of_status(status: int, retry_after: str, where: str) -> CloudError:
    """What an HTTP status means: OpenNebula itself always answers 200."""
    what = f"it answered HTTP {status}"
    if status == 429:
        return Throttled(what, retry_after=wait_of(retry_after), where=where)
    if status in (401, 403):
        return AuthenticationFailed(what, where=where, remedy="something in front of OpenNebula refuses this host")
    if status == 413:
        return LaunchRejected(what, where=where, remedy="let what stands in front of OpenNebula take larger requests")
    if 300 <= status < 400:
        remedy = "write the address that it redirects to: credentials are sent nowhere else"
        return CloudUnavailable(what, where=where, remedy=remedy)
    if status in (500, 503):
        return Answered(what, where=where)
    return CloudUnavailable(what, where=where, remedy=_ENDPOINT if status in (404, 405) else "")


def shortened(text: str) -> str:
    """One line, without what may be a secret."""
    text = _LONG.sub("...", " ".join(text.split()))
    return text if len(text) <= _WORDS else text[:_WORDS] + "..."

"""What OpenStack's refusals mean: HTTP status and the service's words -> type.

Nova has no error codes beside the status, so a few of its own sentences are looked for (nova/exception.py and
nova/quota.py; they have not changed in ten years). What is not understood says nothing: CloudUnavailable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from gridtide.clouds.refusals import Answered, MachineNotFound, NotAuthorized, wait_of
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

RENEW: Final = "renew the application credential and write it into clouds.yaml: see docs/how-to/use-openstack.md"
CATALOG: Final = "check region and clouds.yaml"
_QUOTA: Final = "ask for a higher quota, or set quota of the cloud"

_SCOPES: Final[Mapping[str, str]] = MappingProxyType({"instances": "machines", "ram": "memory", "servers": "machines"})
"""Nova's words for what we call otherwise."""
_QUOTA_WORDS: Final = re.compile(
    r"quota exceeded|maximum number of .*(?:exceed|allowed)|too many .* (?:exceed|in)", re.I
)
_QUOTA_SCOPE: Final = re.compile(
    r"quota exceeded for(?: resources:)? \[?([\w', ]+?)\]?[:.]"
    r"|(?:too many|maximum number of) ([a-z ]+?)(?: exceed| allow|$)",
    re.I,
)
_CAPACITY_WORDS: Final = re.compile(
    r"no valid host|no more (?:fixed )?ip addresses|no more ip|no fixed ip addresses available|not enough free", re.I
)
_IMAGE_WORDS: Final = re.compile(
    r"can ?not find requested image|image \S+ could not be found|image \S+ is (?:not active|unacceptable)"
    r"|no image found|failed to find image",
    re.I,
)
_POLICY_WORDS: Final = re.compile(r"policy doesn't allow|not authorized|not permitted|disallowed by policy", re.I)

ODD: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What code that reads an answer raises where the answer is not as it should be."""

_WORDS: Final = 300
"""Characters of the cloud's own words that are passed on."""


def of_answer(status: int, body: bytes, retry_after: str, where: str) -> CloudError:
    """What an answer that is no success means. No part of a request is repeated in it."""
    words, spoke = said(body)
    what = f"{words} (HTTP {status})" if words else f"the cloud answered HTTP {status}"
    if status == 401:
        return AuthenticationFailed(what, where=where, remedy=RENEW)
    if status in (403, 409, 413) and _QUOTA_WORDS.search(words):
        return QuotaExceeded(what, scope=scope(words), where=where, remedy=_QUOTA)
    if status in (413, 429):
        return Throttled(what, retry_after=wait_of(retry_after), where=where)
    if status == 403:
        if spoke and not _POLICY_WORDS.search(words):
            return LaunchRejected(what, where=where)
        return NotAuthorized(what, where=where, remedy="give these credentials the role member in the project")
    if status == 404 and not spoke and not _IMAGE_WORDS.search(words):
        # Of a gateway or a load balancer, which knows nothing of machines.
        return CloudUnavailable(f"{what}, and not in OpenStack's words", where=where)
    if 400 <= status < 500 and status != 408:
        return _of_words(status, words, what, where)
    return Answered(what, where=where) if status in (500, 503) else CloudUnavailable(what, where=where)


def _of_words(status: int, words: str, what: str, where: str) -> CloudError:
    if _IMAGE_WORDS.search(words):
        return ImageNotFound(what, where=where)
    if _CAPACITY_WORDS.search(words):
        return NoCapacity(what, where=where)
    if status == 404:
        return MachineNotFound(what, where=where)
    return LaunchRejected(what, where=where)


def said(body: bytes) -> tuple[str, bool]:
    """The service's own words, and whether it is OpenStack's way of saying them (a JSON object around a message)."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    for found in document.values() if isinstance(document, dict) else ():
        text = found.get("message") if isinstance(found, dict) else None
        if isinstance(text, str):
            return shortened(text), True
    # Glance answers 404 in HTML, with a sentence of its own.
    text = re.sub(r"<title>.*?</title>|<[^>]*>", " ", body[:2000].decode("utf-8", "replace"), flags=re.S)
    return shortened(text) if _IMAGE_WORDS.search(text) else "", False


def shortened(text: str) -> str:
    """Without what Nova repeats of a request ("Value: ..."): that may be user-data."""
    text = " ".join(text.partition(" Value: ")[0].split())
    return text if len(text) <= _WORDS else text[:_WORDS] + "..."


def scope(words: str) -> str:
    """Which quota is meant."""
    found = _QUOTA_SCOPE.search(words)
    named = "" if found is None else (found[1] or found[2] or "").replace("'", "")
    scopes = [_SCOPES.get(each.strip(), each.strip()) for each in named.split(",") if each.strip()]
    return ", ".join(dict.fromkeys(scopes)) or "quota"


@cache
def failures() -> tuple[type[Exception], ...]:
    """All that openstacksdk and what is below it raise: their own, the system's, and what code makes of odd answers."""
    from keystoneauth1.exceptions import ClientException
    from openstack.exceptions import SDKException
    from yaml import YAMLError

    return (CloudError, ClientException, SDKException, YAMLError, OSError, *ODD)


def typed(error: Exception, where: str) -> CloudError:
    """Anything that openstacksdk and what is below it raise, as one of ours."""
    from keystoneauth1 import exceptions as keystone
    from openstack.exceptions import ConfigException
    from yaml import YAMLError

    if isinstance(error, CloudError):
        return error
    if isinstance(error, keystone.HttpError):  # of the log-in, or of the discovery of versions: never about a machine
        status = int(error.http_status or 0)
        what = shortened(str(error.message or error))
        if status in (400, 401, 403, 404):
            return AuthenticationFailed(f"the log-in failed: {what}", where=where, remedy=RENEW)
        if status == 429:
            return Throttled(what, where=where)
        return Answered(what, where=where) if status in (500, 503) else CloudUnavailable(what, where=where)
    if isinstance(error, keystone.EndpointNotFound | keystone.VersionNotAvailable):
        return AuthenticationFailed(shortened(str(error)), where=where, remedy=CATALOG)
    if isinstance(error, ConfigException | YAMLError | keystone.AuthPluginException | keystone.MissingAuthMethods):
        return AuthenticationFailed(shortened(str(error)), where=where, remedy=CATALOG)
    if isinstance(error, keystone.ClientException | OSError):
        return CloudUnavailable(shortened(str(error)), where=where)
    return CloudUnavailable(f"the answer makes no sense ({type(error).__name__}: {error})", where=where)

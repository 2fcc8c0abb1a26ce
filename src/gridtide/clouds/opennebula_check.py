"""What ``gridtide check`` finds out about an OpenNebula cloud. Changes nothing, raises nothing."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gridtide.clouds.opennebula_catalogue import User
from gridtide.clouds.opennebula_machine import ID
from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import CloudError

if TYPE_CHECKING:
    from gridtide.clouds.opennebula import OpennebulaCloud

SOON: Final = timedelta(days=8)
"""Credentials that expire within this are warned of: a week, and a day to act on it."""
LEAST_VERSION: Final = (5, 12)
"""The first that answers for a set of machines (one.vmpool.infoset)."""

_RENEW: Final = "make a new login token before that: see docs/how-to/use-opennebula.md"


async def findings(cloud: OpennebulaCloud, images: Sequence[str], until: float) -> tuple[Finding, ...]:
    """In the order in which one would mend."""
    try:
        secret = await cloud.api.secret()
        user = await cloud.catalogue.user(until)
    except CloudError as error:
        return (Finding("credentials", Level.ERROR, error.what, error.remedy),)
    found = [lasting(user, secret, datetime.now(UTC))]
    if urlsplit(cloud.access.endpoint).scheme != "https":
        text = "the endpoint is not encrypted: credentials and join tokens can be read on the way"
        found.append(Finding("connection", Level.WARNING, text, "use https://, unless it is this host"))
    try:
        number = len(await cloud.listing.all(until))
        version = await cloud.api.call("system.version", read=str, until=until)
    except CloudError as error:
        return (*found, Finding("connection", Level.ERROR, str(error), error.remedy))
    found.append(Finding("connection", Level.OK, f"{cloud.where}, version {version}, lists {number} machines"))
    if older(version):
        text = f"OpenNebula {version} is older than 5.12, for which this was written"
        found.append(Finding("connection", Level.WARNING, text, "have it updated"))
    for look in (_quota, _shapes, _networks, _clusters):
        try:
            found += await look(cloud, until)
        except CloudError as error:
            found.append(Finding(look.__name__.strip("_"), Level.ERROR, error.what, error.remedy))
    for name in dict.fromkeys(images):
        try:
            image = await cloud.catalogue.image(name, until)
        except CloudError as error:
            found.append(Finding(f"image {name}", Level.ERROR, error.what, error.remedy))
        else:
            found.append(Finding(f"image {name}", Level.OK, f"is image {image}"))
    return tuple(found)


def lasting(user: User, secret: str, now: datetime) -> Finding:
    """A warning when they end soon. The secret is compared with the user's login tokens, and not shown."""
    ends = [ends for token, ends in user.tokens if hmac.compare_digest(token.encode(), secret.encode())]
    if not ends:
        return Finding("credentials", Level.OK, f"a password of user {user.name}; it does not expire")
    if ends[0] < 0:
        return Finding("credentials", Level.OK, f"a login token of user {user.name}; it does not expire")
    left = ends[0] - now.timestamp()
    try:
        when = f"{datetime.fromtimestamp(ends[0], UTC):%Y-%m-%d at %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        when = "a day beyond all calendars"
    text = f"a login token of user {user.name}; it expires on {when}"
    if left <= SOON.total_seconds():
        return Finding("credentials", Level.WARNING, text, _RENEW)
    return Finding("credentials", Level.OK, text)


def older(version: str) -> bool:
    """Than what this was written for. What is no version is not judged."""
    parts = version.split(".")[:2]
    if not all(part.isascii() and part.isdigit() for part in parts):
        return False
    return tuple(int(part) for part in parts) < LEAST_VERSION


async def _quota(cloud: OpennebulaCloud, until: float) -> list[Finding]:
    parts = [
        f"{each.used:g} of the {each.whose}'s {each.limit:g} {each.metric}{' running' if each.running else ''}"
        for each in await cloud.catalogue.limits(until)
    ]
    return [Finding("quota", Level.OK, f"used are {', '.join(parts)}" if parts else "without limit")]


async def _shapes(cloud: OpennebulaCloud, until: float) -> list[Finding]:
    known = await cloud.catalogue.templates(until, anew=True)
    found = []
    for choice in cloud.settings.templates:
        subject = f"shape {choice.name}"
        if choice.name not in known:
            text = f"neither this user nor the administrator has a template {choice.template!r}"
            found.append(Finding(subject, Level.ERROR, text, "onetemplate list shows them; others go by their id"))
            continue
        shape = known[choice.name].shape
        price = f"{shape.price:g} per hour" if shape.price else "no price"
        found.append(Finding(subject, Level.OK, f"{shape.resources}, {price}"))
        if not shape.resources.memory:
            text, remedy = "its template does not say how much memory it has", "set memory of the shape"
            found.append(Finding(subject, Level.ERROR, text, remedy))
        if not shape.resources.disk:
            text, remedy = (
                "how large its disk is cannot be told: jobs that ask for disk do not fit",
                "set disk of the shape",
            )
            found.append(Finding(subject, Level.WARNING, text, remedy))
    return found


async def _networks(cloud: OpennebulaCloud, until: float) -> list[Finding]:
    networks = await cloud.catalogue.networks(until)
    if not networks:
        return [Finding("networks", Level.OK, "those of the templates")]
    return [Finding("networks", Level.OK, ", ".join(map(str, networks)))]


async def _clusters(cloud: OpennebulaCloud, until: float) -> list[Finding]:
    if not cloud.settings.clusters:
        return []

    def names(pool: object) -> set[str]:
        rows = pool.CLUSTER  # type: ignore[attr-defined]
        return {str(row.NAME) for row in rows} | {str(int(row.ID)) for row in rows}

    offered = await cloud.api.call("clusterpool.info", read=names, until=until)
    return [
        Finding(f"cluster {name}", Level.OK, "is there")
        if name in offered
        else Finding(
            f"cluster {name}",
            Level.WARNING,
            "this user does not see it",
            "give its name or id as onecluster list shows them" if not ID.fullmatch(name) else "check its id",
        )
        for name in cloud.settings.clusters
    ]

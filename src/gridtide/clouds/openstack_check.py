"""What ``gridtide check`` finds out about an OpenStack cloud. Changes nothing, raises nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from gridtide.clouds.openstack_api import MICROVERSION, LogIn, Service
from gridtide.clouds.openstack_errors import ODD, typed
from gridtide.clouds.protocol import Finding, Level
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import CloudError

if TYPE_CHECKING:
    from gridtide.clouds.openstack import OpenstackCloud

SOON: Final = timedelta(days=8)
"""Credentials that expire within this are warned of: a week, and a day to act on it."""

_RENEW: Final = "make a new application credential before that: see docs/how-to/use-openstack.md"


async def findings(cloud: OpenstackCloud, images: Sequence[str], until: float) -> tuple[Finding, ...]:
    """In the order in which one would mend."""
    try:
        log_in = await cloud.api.log_in(until)
    except CloudError as error:
        return (Finding("credentials", Level.ERROR, error.what, error.remedy),)
    try:
        found = [await credentials(cloud, log_in, until)]
    except CloudError as error:
        found = [Finding("credentials", Level.WARNING, f"when they expire cannot be read: {error.what}", error.remedy)]
    if urlsplit(log_in.address).scheme != "https":
        text = f"{log_in.address} is not encrypted: passwords and join tokens can be read on the way"
        found.append(Finding("connection", Level.WARNING, text, "use the https:// address of Keystone, if it has one"))
    try:
        number = len(await cloud.machines())
        version = await cloud.api.microversion(until)
    except CloudError as error:
        return (*found, Finding("connection", Level.ERROR, str(error), error.remedy))
    found.append(Finding("connection", Level.OK, f"{cloud.where} answers and lists {number} machines"))
    if tuple(map(int, version.split("."))) < MICROVERSION:
        text = f"Nova speaks microversion {version}: servers of a cell that is down are missing from its listings"
        found.append(Finding("connection", Level.WARNING, text, "have Nova updated to Stein or later"))
    for look in (_quota, _shapes, _networks, _key_pair, _server_group, _zones):
        try:
            found += await _typed(cloud, look(cloud, until))
        except CloudError as error:
            found.append(Finding(look.__name__.strip("_").replace("_", " "), Level.ERROR, error.what, error.remedy))
    for name in dict.fromkeys(images):
        try:
            image = await cloud.catalogue.image(name, until)
        except CloudError as error:
            found.append(Finding(f"image {name}", Level.ERROR, error.what, error.remedy))
        else:
            found.append(Finding(f"image {name}", Level.OK, image))
    return tuple(found)


async def credentials(cloud: OpenstackCloud, log_in: LogIn, until: float) -> Finding:
    """How long they last, as Keystone says. Raises CloudError when it says nonsense."""
    what, path, key = "a password", f"/users/{log_in.user}", "password_expires_at"
    if log_in.credential:
        what, key = "an application credential", "expires_at"
        path += f"/application_credentials/{log_in.credential}"
    try:
        answer = await cloud.api.ask_keystone(path, until)
    except CloudError as error:
        return Finding("credentials", Level.OK, f"{what}; when it expires cannot be asked: {error.what}")
    document = next(iter(answer.values()), None)
    ends = document.get(key) if isinstance(document, dict) else None
    try:
        return lasting(what, ends, datetime.now(UTC))
    except ODD as error:
        raise typed(error, cloud.where) from error


def lasting(what: str, ends: object, now: datetime) -> Finding:
    """A warning when they end soon. ``ends`` is Keystone's: ISO 8601 in UTC, or None."""
    if not isinstance(ends, str):
        return Finding("credentials", Level.OK, f"{what}; it does not expire")
    at = datetime.fromisoformat(ends.replace("Z", "+00:00"))
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    text = f"{what}; it expires on {at:%Y-%m-%d at %H:%M} UTC"
    if at - now <= SOON:
        return Finding("credentials", Level.WARNING, text, _RENEW)
    return Finding("credentials", Level.OK, text)


async def _typed(cloud: OpenstackCloud, looking: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await looking
    except ODD as error:
        raise typed(error, cloud.where) from error


async def _quota(cloud: OpenstackCloud, until: float) -> list[Finding]:
    limit = await cloud.quota()
    parts = [
        f"{amount} {unit}"
        for amount, unit in ((limit.machines, "machines"), (limit.cores, "cores"), (limit.memory, "MiB of memory"))
        if amount is not None
    ]
    return [Finding("quota", Level.OK, f"of the project: {', '.join(parts) or 'without limit'}")]


async def _shapes(cloud: OpenstackCloud, until: float) -> list[Finding]:
    known = {shape.name: shape for shape in await cloud.shapes()}
    named = [choice.name for choice in cloud.settings.flavors]
    found = [
        Finding(f"shape {name}", Level.ERROR, "the project sees no such flavour", "openstack flavor list shows them")
        for name in named
        if name not in known
    ]
    for shape in known.values():
        price = f"{shape.price:g} per hour" if shape.price else "no price"
        found.append(Finding(f"shape {shape.name}", Level.OK, f"{shape.resources}, {price}"))
        if not shape.resources.disk:
            text = "has no disk of its own: jobs that ask for disk do not fit"
            remedy = "set disk of the shape, or volume of the cloud"
            found.append(Finding(f"shape {shape.name}", Level.WARNING, text, remedy))
    return found or [Finding("shapes", Level.ERROR, "the project sees no flavour", "ask its administrator for some")]


async def _networks(cloud: OpenstackCloud, until: float) -> list[Finding]:
    networks = await cloud.catalogue.networks(until)
    if networks == "none":
        text, remedy = "machines get none, so that they cannot call the service", "name one, if they shall join"
        return [Finding("networks", Level.WARNING, text, remedy)]
    return [Finding("networks", Level.OK, networks if isinstance(networks, str) else ", ".join(networks))]


async def _key_pair(cloud: OpenstackCloud, until: float) -> list[Finding]:
    name = cloud.settings.key_pair
    if not name:
        return []
    try:
        await cloud.api.call(Service.COMPUTE, "GET", f"/os-keypairs/{quote(name, safe='')}", until)
    except MachineNotFound:
        # Key pairs belong to users: one that the project's administrator sees may not be there for this credential.
        return [Finding("key pair", Level.ERROR, f"these credentials see none that is called {name!r}", "make it")]
    return [Finding("key pair", Level.OK, name)]


async def _server_group(cloud: OpenstackCloud, until: float) -> list[Finding]:
    group = await cloud.catalogue.server_group(until)
    return [Finding("server group", Level.OK, f"{cloud.settings.server_group} is {group}")] if group else []


async def _zones(cloud: OpenstackCloud, until: float) -> list[Finding]:
    if not cloud.settings.zones:
        return []
    answer = await cloud.api.call(Service.COMPUTE, "GET", "/os-availability-zone", until)
    offered = {each["zoneName"] for each in answer.get("availabilityZoneInfo", ()) if each["zoneState"]["available"]}
    return [
        Finding(f"zone {zone}", Level.OK, "available")
        if zone in offered
        else Finding(f"zone {zone}", Level.ERROR, "is not available", f"there is: {', '.join(sorted(offered))}")
        for zone in cloud.settings.zones
    ]

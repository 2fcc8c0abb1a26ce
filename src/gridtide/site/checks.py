"""What must hold between the keys of a site file. Each check yields what is wrong, at the key that should change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gridtide.errors import GridtideError
from gridtide.model.rules import Policy
from gridtide.plug_ins import call_plug_in
from gridtide.site.base import is_loopback
from gridtide.site.database_url import has_password
from gridtide.site.drivers import CloudSettings, ProcessCloudSettings, QueueSettings
from gridtide.site.hints import suggestion
from gridtide.site.models import CertificateFiles, GroupSettings, ServiceSettings, StoreSettings
from gridtide.site.policies import FixedPolicySettings, PerJobPolicySettings
from gridtide.site.problems import Trouble
from gridtide.site.units import show_duration


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a group may use: those of all sections that are written, whether they are right or not."""

    queues: tuple[str, ...]
    clouds: tuple[str, ...]
    groups: tuple[str, ...]
    cloud_settings: Mapping[str, CloudSettings]
    """Only the clouds whose settings are right."""
    queue_settings: Mapping[str, QueueSettings]
    """Only the queues whose settings are right."""


def check_service(service: ServiceSettings, known: Known) -> Iterator[Trouble]:
    """A token must never cross a network in the clear, and workers need an address to call."""
    listen, url = service.listen, service.url
    if service.tls == "off" and not listen.loopback:
        yield Trouble(
            ("service", "tls"),
            f'"off" would send tokens in the clear: {listen} can be reached from other machines',
            '"auto", or listen = "127.0.0.1:8470"',
        )
    if url is None and listen.everywhere:
        right = f'for example url = "https://HOST:{listen.port or 8470}"'
        yield Trouble(("service", "url"), f"is needed: workers cannot call {listen}", right)
    if url is not None:
        yield from _check_url(url, service)
    for name, cloud in known.cloud_settings.items():
        bridged = isinstance(cloud, ProcessCloudSettings) and cloud.network == "bridge"
        if bridged and is_loopback(urlsplit(service.url_on(listen.port)).hostname or ""):
            what = f"workers of cloud {name!r} have a network of their own and cannot call {listen}"
            yield Trouble(("service", "listen"), what, "listen on the address of its bridge")
    if service.aliec2 is not None and known.groups and service.aliec2.group not in known.groups:
        name = service.aliec2.group
        yield Trouble(("service", "aliec2", "group"), f"there is no group {name!r}", suggestion(name, known.groups))


def _check_url(url: str, service: ServiceSettings) -> Iterator[Trouble]:
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    if scheme == "http" and service.encrypted:
        reason = "a certificate is given" if isinstance(service.tls, CertificateFiles) else "it is not on loopback"
        right = f'write "https{url.removeprefix("http")}"'
        yield Trouble(("service", "url"), f"is plain HTTP, but the service speaks TLS: {reason}", right)
    elif scheme == "http" and not is_loopback(host):
        right = "https://, with a TLS proxy or with listen on an address that is not loopback"
        yield Trouble(("service", "url"), "would send tokens over a network in the clear", right)


def check_store(store: StoreSettings) -> Iterator[Trouble]:
    """One password at most."""
    url = store.url.get_secret_value()
    if store.password_file is None:
        return
    if url.startswith("sqlite"):
        yield Trouble(("store", "password_file"), "an SQLite database has no password", "leave it out")
    elif has_password(store.url):
        yield Trouble(("store", "password_file"), "the URL holds a password already", "take it out of the URL")


def check_queues(queues: Mapping[str, QueueSettings]) -> Iterator[Trouble]:
    """Some types of queue exist once in a site."""
    first: dict[type[QueueSettings], str] = {}
    for name, queue in queues.items():
        other = first.setdefault(type(queue), name)
        if queue.only_one and other != name:
            what = f"{other!r} is the site's {queue.type} queue already"
            yield Trouble(("queues", name, "type"), what, "one can serve any number of groups")


def check_group(name: str, group: GroupSettings, known: Known) -> Iterator[Trouble]:
    """Names exist, and figures do not contradict each other."""
    here = ("groups", name)
    if known.queues and group.queue not in known.queues:  # a site without any has been told so
        right = suggestion(group.queue, known.queues)
        yield Trouble((*here, "queue"), f"there is no queue {group.queue!r}", right)
    for number, cloud in enumerate(group.clouds):
        key = (*here, "clouds", number)
        if known.clouds and cloud not in known.clouds:
            yield Trouble(key, f"there is no cloud {cloud!r}", suggestion(cloud, known.clouds))
        elif cloud in group.clouds[:number]:
            yield Trouble(key, f"{cloud!r} is named twice", "name each cloud once")
    yield from _check_shapes(name, group, known)
    if group.minimum > group.maximum:
        what = f"{group.minimum} is more than the maximum of {group.maximum}"
        yield Trouble((*here, "minimum"), what, f"at most {group.maximum}, or a larger maximum")
    yield from _check_policy(name, group)
    yield from _check_fixed(name, group)
    yield from _check_single_use(name, group, known)
    if group.lease <= 2 * group.heartbeat:
        what = f"{show_duration(group.lease)} would be lost with one late heartbeat"
        right = f"more than twice the heartbeat of {show_duration(group.heartbeat)}"
        shorter = (
            "lease" if "lease" in group.model_fields_set or "heartbeat" not in group.model_fields_set else "heartbeat"
        )
        yield Trouble((*here, shorter), what, right)


def _check_policy(name: str, group: GroupSettings) -> Iterator[Trouble]:
    """One of a package from elsewhere may fail to be one."""
    key = ("groups", name, "policy")
    try:
        made = call_plug_in(group.policy.policy)
    except GridtideError as error:
        yield Trouble(key, f"type {group.policy.type!r} makes no policy of it: {error.what}", error.remedy or _THEIRS)
        return
    if not isinstance(made, Policy):
        what = f"type {group.policy.type!r} makes no policy of it, but a {type(made).__name__}"
        yield Trouble(key, what, _THEIRS)


_THEIRS: Final = "tell the authors of the package that brings it"


def _check_fixed(name: str, group: GroupSettings) -> Iterator[Trouble]:
    policy = group.policy
    if isinstance(policy, FixedPolicySettings) and not group.minimum <= policy.count <= group.maximum:
        what = f"{policy.count} is not between minimum and maximum"
        yield Trouble(("groups", name, "policy", "count"), what, f"{group.minimum} to {group.maximum}")


def _check_single_use(name: str, group: GroupSettings, known: Known) -> Iterator[Trouble]:
    """Else its workers would be launched, refused when they join, and launched again."""
    queue = known.queue_settings.get(group.queue)
    if isinstance(group.policy, PerJobPolicySettings) and queue is not None and not queue.single_use:
        what = f'"per_job" cannot be: a node of {queue.type} (queue {group.queue!r}) takes any number of jobs'
        yield Trouble(("groups", name, "policy", "type"), what, '"queue"')


def _check_shapes(name: str, group: GroupSettings, known: Known) -> Iterator[Trouble]:
    """Only where all clouds of the group define their shapes in the site file: otherwise only they can tell."""
    offered: dict[str, None] = {}
    tell = True
    for cloud in group.clouds:
        settings = known.cloud_settings.get(cloud)
        shapes = None if settings is None else settings.known_shapes()
        tell = tell and shapes is not None
        offered |= dict.fromkeys(shapes or ())
    for number, shape in enumerate(group.shapes):
        key = ("groups", name, "shapes", number)
        if shape in group.shapes[:number]:
            yield Trouble(key, f"{shape!r} is named twice", "name each shape once")
        elif tell and shape not in offered:
            yield Trouble(key, f"its clouds have no shape {shape!r}", suggestion(shape, offered))

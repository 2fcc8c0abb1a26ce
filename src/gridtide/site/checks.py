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
from gridtide.site.locate import Keys
from gridtide.site.models import CertificateFiles, GroupSettings, ServiceSettings, StoreSettings
from gridtide.site.policies import (
    FixedPolicySettings,
    LoadPolicySettings,
    PerJobPolicySettings,
    PolicySettings,
    SchedulePolicySettings,
    WindowSettings,
)
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


def check_budgets(clouds: Mapping[str, CloudSettings]) -> Iterator[Trouble]:
    """A machine without a price would pass a budget unseen."""
    for name, cloud in clouds.items():
        prices = cloud.prices()
        free = [shape for shape, price in prices.items() if not price]
        if cloud.budget is None or (prices and not free):
            continue
        without = f"shape {free[0]!r} has none" if free else "no shape has one"
        right = f"a price per hour for {free[0]!r}" if free else "for example shapes = { NAME = { price = 0.1 } }"
        yield Trouble(("clouds", name, "budget"), f"counts with prices, and {without}", right)


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
    yield from _check_policy((*here, "policy"), group.policy, group, known)
    if group.lease <= 2 * group.heartbeat:
        what = f"{show_duration(group.lease)} would be lost with one late heartbeat"
        right = f"more than twice the heartbeat of {show_duration(group.heartbeat)}"
        shorter = (
            "lease" if "lease" in group.model_fields_set or "heartbeat" not in group.model_fields_set else "heartbeat"
        )
        yield Trouble((*here, shorter), what, right)


def _check_policy(here: Keys, policy: PolicySettings, group: GroupSettings, known: Known) -> Iterator[Trouble]:
    """What a policy says against what its group says."""
    match policy:
        case FixedPolicySettings() if not group.minimum <= policy.count <= group.maximum:
            what = f"{policy.count} is not between minimum and maximum"
            yield Trouble((*here, "count"), what, f"{group.minimum} to {group.maximum}")
        case PerJobPolicySettings():
            yield from _check_single_use(here, group, known)
        case LoadPolicySettings():
            yield from _check_load(here, policy, group)
        case SchedulePolicySettings():
            for number, window in enumerate(policy.windows):
                yield from _check_window((*here, "windows", number), window, group)
            if isinstance(policy.follow, SchedulePolicySettings):
                yield Trouble((*here, "follow", "type"), "a schedule cannot follow a schedule", '"queue"')
            else:
                yield from _check_policy((*here, "follow"), policy.follow, group, known)
        case _:
            yield from _check_own(here, policy)


def _check_own(here: Keys, policy: PolicySettings) -> Iterator[Trouble]:
    """One of a package from elsewhere may fail to be one."""
    try:
        made = call_plug_in(policy.policy)
    except GridtideError as error:
        yield Trouble(here, f"type {policy.type!r} makes no policy of it: {error.what}", error.remedy or _THEIRS)
        return
    if not isinstance(made, Policy):
        yield Trouble(here, f"type {policy.type!r} makes no policy of it, but a {type(made).__name__}", _THEIRS)


_THEIRS: Final = "tell the authors of the package that brings it"


def _check_single_use(here: Keys, group: GroupSettings, known: Known) -> Iterator[Trouble]:
    """Else its workers would be launched, refused when they join, and launched again."""
    queue = known.queue_settings.get(group.queue)
    if queue is not None and not queue.single_use:
        what = f'"per_job" cannot be: a node of {queue.type} (queue {group.queue!r}) takes any number of jobs'
        yield Trouble((*here, "type"), what, '"queue"')


def _check_load(here: Keys, policy: LoadPolicySettings, group: GroupSettings) -> Iterator[Trouble]:
    if policy.low >= policy.high:
        what = f"{policy.low:g} is not below high, which is {policy.high:g}: workers would come and go for ever"
        yield Trouble((*here, "low"), what, f"less than {policy.high:g}")
    if policy.heard_within < 2 * group.heartbeat:
        what = f"one late heartbeat would be taken for silence: workers report every {show_duration(group.heartbeat)}"
        yield Trouble((*here, "heard_within"), what, f"at least {show_duration(2 * group.heartbeat)}")


def _check_window(here: Keys, window: WindowSettings, group: GroupSettings) -> Iterator[Trouble]:
    """The maximum of the group is what an operator may rely on, at any hour."""
    most = group.maximum if window.maximum is None else min(window.maximum, group.maximum)
    for key, figure in (
        ("maximum", window.maximum),
        ("minimum", window.minimum),
        ("desired", window.desired),
        ("warm", window.warm),
    ):
        limit = group.maximum if key == "maximum" else most
        if figure is not None and figure > limit:
            whose = "the group's" if limit == group.maximum else "the window's"
            yield Trouble((*here, key), f"{figure} is more than {whose} maximum of {limit}", f"at most {limit}")


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

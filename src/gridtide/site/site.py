"""A site file that was read and found good, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gridtide.model.costs import Choose
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, Generation, GroupName, QueueName, ShapeName
from gridtide.model.rules import CloudRules, GroupRules, SiteRules
from gridtide.site.drivers import CloudSettings, QueueSettings
from gridtide.site.models import ControllerSettings, GroupSettings, ServiceSettings, SiteSettings, StoreSettings

_NO_DIGESTS: Mapping[GroupName, str] = MappingProxyType({})

# 48 bits: two generations of one group that look alike by chance would leave old workers in place.
_GENERATION_LENGTH: Final = 12

GROUP_ATTRIBUTE: Final = "GridtideGroup"
"""Advertised by every worker: its group, so that a job can ask for one."""
SITE_ATTRIBUTE: Final = "GridtideSite"
"""Advertised by every worker: its site."""


@dataclass(frozen=True, slots=True)
class ContextFile:
    """A context file as it was when the site file was read: what a machine gets is what its generation says."""

    path: Path
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything the site file says, with defaults filled in and paths absolute."""

    path: Path
    digest: str
    """SHA-256, hexadecimal, of the site file and of every context file: equal digests, equal sites."""
    site: SiteSettings
    service: ServiceSettings
    store: StoreSettings
    controller: ControllerSettings
    queues: Mapping[QueueName, QueueSettings]
    clouds: Mapping[CloudName, CloudSettings]
    groups: Mapping[GroupName, GroupSettings]
    context: Mapping[GroupName, tuple[ContextFile, ...]]
    """Each group's own files."""
    shared_context: Mapping[CloudName | None, tuple[ContextFile, ...]]
    """Those of each cloud; None: of the whole site."""

    @property
    def name(self) -> str:
        """Of the site."""
        return self.site.name

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.site.state

    def generation(self, group: GroupName, images: Mapping[GroupName, str] = _NO_DIGESTS) -> Generation:
        """Changes with the group's image and all that its machines are told. KeyError.

        ``images``: digests of the groups' images, where this host knows them: an image that is built anew under its
        old name is another one.
        """
        digest = sha256()
        for part in (self.groups[group].image or "", images.get(group, ""), *self._context_parts(group)):
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)  # lengths keep "ab", "c" and "a", "bc" apart
        return Generation(digest.hexdigest()[:_GENERATION_LENGTH])

    def layers(self, group: GroupName, cloud: CloudName) -> tuple[ContextFile, ...]:
        """What machines of a group on a cloud get: of the site, of the cloud, of the group. KeyError."""
        return (*self.shared_context.get(None, ()), *self.shared_context.get(cloud, ()), *self.context[group])

    def _context_parts(self, group: GroupName) -> list[str | bytes]:
        settings = self.groups[group]
        parts: list[str | bytes] = [settings.context.format or ""]
        parts += [word for pair in sorted(settings.context.variables.items()) for word in pair]
        for cloud in settings.clouds:
            parts += [part for one in self.layers(group, CloudName(cloud)) for part in (one.path.name, one.content)]
        return parts

    def attributes(self, group: GroupName) -> Mapping[str, Attribute]:
        """What the group's workers advertise, site and group included. KeyError."""
        own = {GROUP_ATTRIBUTE: group, SITE_ATTRIBUTE: self.name}
        return MappingProxyType({**self.groups[group].attributes, **own})

    def rules(self, images: Mapping[GroupName, str] = _NO_DIGESTS) -> SiteRules:
        """What the planner needs to know of it. ``images``: as for :meth:`generation`."""
        return SiteRules(
            name=self.name,
            groups=MappingProxyType({name: self._group_rules(name, images) for name in self.groups}),
            clouds=MappingProxyType({name: _cloud_rules(name, cloud) for name, cloud in self.clouds.items()}),
            queues=tuple(self.queues),
            warmup=self.controller.warmup,
        )

    def _group_rules(self, name: GroupName, images: Mapping[GroupName, str]) -> GroupRules:
        group = self.groups[name]
        return GroupRules(
            name=name,
            queue=QueueName(group.queue),
            clouds=tuple(CloudName(cloud) for cloud in group.clouds),
            shapes=tuple(ShapeName(shape) for shape in group.shapes),
            generation=self.generation(name, images),
            minimum=group.minimum,
            maximum=group.maximum,
            policy=group.policy.policy(),
            join_deadline=group.join_deadline,
            lease=group.lease,
            attributes=self.attributes(name),
            image=group.image,
            share=group.share,
            choose=Choose(group.choose),
            price_limit=group.price_limit,
        )


def _cloud_rules(name: CloudName, cloud: CloudSettings) -> CloudRules:
    budget = None if cloud.budget is None else cloud.budget.budget()
    return CloudRules(name, cloud.limits(), cloud.settle, cloud.billing.billing(), budget)

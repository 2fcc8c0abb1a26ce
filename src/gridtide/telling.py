"""What the machines of each group on each cloud are told: from the site file and the host's images to user-data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gridtide.context.agent import ContextSettings
from gridtide.context.layers import Layer
from gridtide.context.rendering import Telling, UserData, user_data
from gridtide.drivers import local_image
from gridtide.errors import ContextError, ImageError
from gridtide.images.image import Image
from gridtide.model.contexts import ContextFormat
from gridtide.model.ids import CloudName, GroupName, QueueName, ShapeName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.workers import Worker, WorkerState
from gridtide.site.drivers import CloudSettings, LocalCloudSettings
from gridtide.site.qemu import QemuCloudSettings
from gridtide.site.site import Site

Tellings = Mapping[tuple[GroupName, CloudName], Telling]

EXAMPLE_TOKEN = "gtj_WORKER." + "x" * 43
"""As long as a real join token, so that sizes are right."""


def tellings(site: Site, url: str, authority: str | None) -> Tellings:
    """For every group on every cloud that it uses. ``url`` and ``authority``: of the service."""
    found: dict[tuple[GroupName, CloudName], Telling] = {}
    for name, group in site.groups.items():
        privileged = site.queues[QueueName(group.queue)].privileged
        for cloud in map(CloudName, group.clouds):
            settings = site.clouds[cloud]
            wanted = group.context.format
            found[name, cloud] = Telling(
                settings=ContextSettings((settings.reached(url),), authority, settings.shutdown, privileged),
                format=ContextFormat(wanted) if wanted is not None else _format(settings, group.image),
                layers=tuple(Layer(str(one.path), one.content) for one in site.layers(name, cloud)),
                limit=settings.user_data_limit,
                attributes=site.attributes(name),
                variables={"site": site.name, **group.context.variables},
            )
    return MappingProxyType(found)


def check(site: Site, found: Tellings) -> None:
    """Render everything once, for a worker that does not exist. ContextError for the first that is wrong."""
    for group, cloud in found:
        example(site, found, group, cloud)


def example(site: Site, found: Tellings, group: GroupName, cloud: CloudName) -> tuple[Worker, UserData]:
    """What a machine of this group on this cloud would get. ContextError."""
    telling = found.get((group, cloud))
    if telling is None:
        raise ContextError(
            f"group {group} has no cloud {cloud!r}", remedy=f"it has {', '.join(site.groups[group].clouds)}"
        )
    worker = Worker(
        id=WorkerId(f"{group}-xxxxxxxx"),
        group=group,
        cloud=cloud,
        shape=_shape(site.clouds[cloud], site.groups[group].shapes),
        zone=None,
        generation=site.generation(group),
        single_use=False,
        state=WorkerState.LAUNCHING,
        since=0.0,
        created=0.0,
        reason=Reason(Cause.LAUNCH_CALLED, "an example"),
        image=site.groups[group].image,
        queue=QueueName(site.groups[group].queue),
    )
    return worker, user_data(worker, EXAMPLE_TOKEN, telling)


def image_digests(site: Site) -> Mapping[GroupName, str]:
    """Digests of the groups' images, as far as this host has them."""
    digests: dict[GroupName, str] = {}
    for name, group in site.groups.items():
        known = [_image(site.clouds[CloudName(cloud)], group.image) for cloud in group.clouds]
        found = [image.digest for image in known if image is not None]
        if found:
            digests[name] = " ".join(found)
    return digests


def _format(settings: CloudSettings, image: str | None) -> ContextFormat:
    found = _image(settings, image) if isinstance(settings, QemuCloudSettings) else None
    return settings.context_format if found is None else found.context


def _image(settings: CloudSettings, name: str | None) -> Image | None:
    """None for clouds with images of their own, and for one that is missing: its launch will say so."""
    try:
        return None if name is None else local_image(settings, name)
    except ImageError:
        return None


def _shape(settings: CloudSettings, wanted: tuple[str, ...]) -> Shape:
    if isinstance(settings, LocalCloudSettings):
        shapes = settings.shape_values()
        return next((shape for shape in shapes if shape.name in wanted), shapes[0])
    return Shape(ShapeName(wanted[0] if wanted else "shape"), Resources(1, 1024, 1024))

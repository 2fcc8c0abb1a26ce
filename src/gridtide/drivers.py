"""Which driver serves which ``type`` of the site file. The only place that knows them all."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, TypeVar

from gridtide.clock import SystemClock
from gridtide.clouds.ec2 import Ec2Cloud
from gridtide.clouds.ec2_api import Access
from gridtide.clouds.ec2_machine import Ec2Settings, InstanceType
from gridtide.clouds.ec2_rate import Rate, Rates
from gridtide.clouds.openstack import OpenstackCloud
from gridtide.clouds.openstack_api import Access as OpenstackAccess
from gridtide.clouds.openstack_machine import FlavorChoice, OpenstackSettings
from gridtide.clouds.process import ProcessCloud
from gridtide.clouds.process_network import Bridge
from gridtide.clouds.protocol import Cloud
from gridtide.clouds.qemu import QemuCloud, QemuSettings
from gridtide.clouds.qemu_command import Accelerator
from gridtide.errors import PlugInError, SiteFileError
from gridtide.images.image import Image
from gridtide.images.store import ImageStore, default_directory
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, GroupName, QueueName, ShapeName, Zone
from gridtide.pilot.protocol import Pilot
from gridtide.plug_ins import call_plug_in
from gridtide.queues.aliec2 import SpawnedQueue
from gridtide.queues.htcondor.access import PoolPlace
from gridtide.queues.htcondor.queue import HTCondorQueue, PoolSettings
from gridtide.queues.pilot import PilotQueueDriver
from gridtide.queues.protocol import Queue
from gridtide.queues.slurm.queue import SlurmQueue, SlurmSettings
from gridtide.site.drivers import (
    AliEC2QueueSettings,
    CloudSettings,
    LocalCloudSettings,
    PilotQueueSettings,
    ProcessCloudSettings,
    QueueSettings,
)
from gridtide.site.ec2 import Ec2CloudSettings, Ec2RateSettings
from gridtide.site.htcondor import HTCondorQueueSettings
from gridtide.site.openstack import OpenstackCloudSettings
from gridtide.site.qemu import QemuCloudSettings
from gridtide.site.site import Site
from gridtide.site.slurm import SlurmQueueSettings

D = TypeVar("D")

# What ClassAds call the machine types that Python's platform module names.
_ARCHITECTURES: Mapping[str, str] = {"x86_64": "X86_64", "amd64": "X86_64", "aarch64": "AARCH64", "arm64": "AARCH64"}


def make_cloud(name: CloudName, settings: CloudSettings, site: str) -> Cloud:
    """The driver of one ``[clouds.NAME]`` section. SiteFileError for a type without a driver."""
    if isinstance(settings, LocalCloudSettings):
        # Two sites of one name on one machine must not take each other's processes for their own.
        place = hashlib.sha256(str(settings.directory).encode()).hexdigest()[:8]
        tag = f"{site}.{place}"
        if isinstance(settings, QemuCloudSettings):
            images = ImageStore(settings.images or default_directory())
            how = QemuSettings(
                settings.program, Accelerator(settings.accelerator), settings.saved_states, settings.forward
            )
            return QemuCloud(name, tag, settings.directory, settings.shape_values(), images, how)
        if isinstance(settings, ProcessCloudSettings):
            return _process_cloud(name, tag, settings)
    if isinstance(settings, Ec2CloudSettings):
        access = Access(
            settings.region, settings.endpoint, settings.profile, settings.credentials, timeout=settings.timeout
        )
        return Ec2Cloud(name, site, access, _ec2_settings(settings), settle=settings.settle)
    if isinstance(settings, OpenstackCloudSettings):
        return _openstack_cloud(name, settings, site)
    return _plugged(Cloud, lambda: settings.driver(name, site), f"clouds.{name}")  # type: ignore[type-abstract]


def _process_cloud(name: CloudName, tag: str, settings: ProcessCloudSettings) -> ProcessCloud:
    bridge = None
    if settings.bridge is not None and settings.addresses is not None:
        bridge = Bridge(settings.bridge, IPv4Network(settings.addresses))
    return ProcessCloud(
        name,
        tag,
        settings.directory,
        settings.shape_values(),
        settle=settings.settle,
        images=ImageStore(settings.images or default_directory()),
        bridge=bridge,
    )


def _openstack_cloud(name: CloudName, settings: OpenstackCloudSettings, site: str) -> OpenstackCloud:
    place = (settings.profile, settings.clouds_file, settings.region, settings.project)
    volume = settings.volume
    how = OpenstackSettings(
        flavors=tuple(
            FlavorChoice(ShapeName(shape), each.price, each.disk, each.gpus) for shape, each in settings.shapes.items()
        ),
        zones=tuple(Zone(zone) for zone in settings.zones),
        networks=settings.networks,
        security_groups=settings.security_groups,
        key_pair=settings.key_pair or "",
        server_group=settings.server_group or "",
        config_drive=settings.config_drive,
        volume=None if volume is None else volume.size,
        volume_type="" if volume is None else volume.type or "",
        image_properties=settings.image_properties,
        tags=settings.tags,
        calls=settings.calls,
    )
    return OpenstackCloud(name, site, OpenstackAccess(*place, timeout=settings.timeout), how, settle=settings.settle)


def _ec2_settings(settings: Ec2CloudSettings) -> Ec2Settings:
    def rate(given: Ec2RateSettings) -> Rate:
        return Rate(given.burst, given.per_second)

    return Ec2Settings(
        types=tuple(
            InstanceType(ShapeName(name), each.price, each.disk, each.cores, each.memory, each.gpus)
            for name, each in settings.shapes.items()
        ),
        zones=tuple(Zone(zone) for zone in settings.zones),
        spot=settings.market == "spot",
        launch_template=settings.launch_template or "",
        key_pair=settings.key_pair or "",
        security_groups=settings.security_groups,
        instance_profile=settings.instance_profile or "",
        volume_type=settings.volume_type or "",
        tags=settings.tags,
        rates=Rates(rate(settings.rates.launch), rate(settings.rates.terminate), rate(settings.rates.read)),
    )


def local_image(settings: CloudSettings, name: str) -> Image | None:
    """The image of this host that a cloud would use; None for a cloud that has images of its own. ImageError."""
    if not isinstance(settings, QemuCloudSettings | ProcessCloudSettings):
        return None
    return ImageStore(settings.images or default_directory()).get(name)


def make_queue(name: QueueName, settings: QueueSettings, pilot: Pilot | None) -> Queue:
    """The driver of one ``[queues.NAME]`` section. SiteFileError for a type without a driver."""
    if isinstance(settings, PilotQueueSettings) and pilot is not None:
        return PilotQueueDriver(name, pilot)
    if isinstance(settings, HTCondorQueueSettings):
        return HTCondorQueue(name, _pool_settings(settings), SystemClock())
    if isinstance(settings, SlurmQueueSettings):
        return SlurmQueue(name, _slurm_settings(settings))
    if isinstance(settings, AliEC2QueueSettings):
        return SpawnedQueue(name, private_directory(settings.storage))
    return _plugged(Queue, lambda: settings.driver(name), f"queues.{name}")  # type: ignore[type-abstract]


def _plugged(kind: type[D], make: Callable[[], D], where: str) -> D:
    """The driver of a package from elsewhere. SiteFileError when it fails to be one."""
    try:
        made = call_plug_in(make)
    except PlugInError as error:
        raise SiteFileError(f"its driver cannot be made: {error.what}", where=where, remedy=_THEIRS) from error
    if not isinstance(made, kind):
        what = f"its driver is no {kind.__name__}: {type(made).__name__} lacks some of its methods"
        raise SiteFileError(what, where=where, remedy=_THEIRS)
    return made


_THEIRS: Final = "tell the authors of the package that brings it"


def _pool_settings(settings: HTCondorQueueSettings) -> PoolSettings:
    return PoolSettings(
        place=PoolPlace(settings.collector, settings.domain(), settings.address, settings.port_range()),
        signing_key=settings.signing_key,
        storage=private_directory(settings.storage),
        schedds=settings.schedds or None,
        attributes=settings.attributes,
        start=settings.start,
        static_slots=settings.slots == "static",
        url_transfers=settings.url_transfers,
        update_interval=settings.update_interval,
        deadline=settings.deadline,
        configuration=settings.configuration,
    )


def _slurm_settings(settings: SlurmQueueSettings) -> SlurmSettings:
    return SlurmSettings(
        controllers=settings.controllers,
        munge_key=settings.munge_key,
        prefix=settings.prefix,
        configuration=settings.configuration_file(),
        marker=settings.marker,
        reserve=settings.reserve,
        own_ports=settings.own_ports,
        loopback=settings.loopback(),
        templates=settings.templates,
        lending=private_directory(settings.storage) / "lent" if settings.power_saving else None,
        timeout=settings.timeout,
        memory_limit=settings.memory_limit,
    )


def pilot_settings(queues: Mapping[QueueName, QueueSettings]) -> tuple[QueueName, PilotQueueSettings] | None:
    """The site's pilot queue, if it has one. SiteFileError when it has two: jobs are submitted to *the* pilot queue."""
    found = [(name, each) for name, each in queues.items() if isinstance(each, PilotQueueSettings)]
    if len(found) > 1:
        raise SiteFileError(
            f"there are {len(found)} pilot queues: {', '.join(name for name, _ in found)}",
            where=f"queues.{found[1][0]}",
            remedy="one pilot queue can serve any number of groups",
        )
    return found[0] if found else None


def spawned_queue(site: Site, queues: Mapping[QueueName, Queue]) -> SpawnedQueue:
    """The queue of the group that AliEC2's routes spawn into. SiteFileError when it is of another type."""
    name = site.service.aliec2.group if site.service.aliec2 is not None else ""
    group = site.groups.get(GroupName(name))
    queue = None if group is None else queues.get(QueueName(group.queue))
    if not isinstance(queue, SpawnedQueue):
        raise SiteFileError(
            f"the queue of group {name!r} is not of type 'aliec2'",
            where=f"{site.path}: service.aliec2.group",
            remedy='give the group a queue of its own with type = "aliec2"',
        )
    return queue


def planned_attributes() -> Mapping[str, Attribute]:
    """What workers of this host's kind will say of themselves, known before one exists."""
    machine = platform.machine().lower()
    return {"Arch": _ARCHITECTURES.get(machine, machine.upper()), "OpSys": platform.system().upper()}


def private_directory(path: Path) -> Path:
    """Made, for this user alone, if it is not there. SiteFileError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SiteFileError(
            f"the directory cannot be made: {error.strerror}", where=str(path), remedy="make it, or name another"
        ) from None
    return path

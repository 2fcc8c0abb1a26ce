"""How clouds and queue of a simulation behave, as a file: what a site file does not say, since real clouds do.

docs/reference/traces.md tells every key. Strict, like the site file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from gridtide.errors import SiteFileError
from gridtide.model.costs import Billing
from gridtide.model.ids import CloudName, QueueName, ShapeName, Zone
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import SiteRules
from gridtide.sim.batch import Order, Placement
from gridtide.sim.cloud import BootTime, CloudModel, Outages, RateLimit, Reclaim
from gridtide.sim.fault_file import FaultSettings, Share, check_faults
from gridtide.sim.setting import Setting, standard_setting
from gridtide.site.base import Count, PositiveCount, Price, ShapeKey, SiteModel, written
from gridtide.site.costs import BillingSettings
from gridtide.site.drivers import CloudSettings
from gridtide.site.loader import load
from gridtide.site.locate import Locations, Position
from gridtide.site.problems import SiteFileProblem, troubles
from gridtide.site.units import Duration, Period, PositiveSize, Size

Positive = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]


class BootSettings(SiteModel):
    """Boot times are lognormal."""

    median: Duration = written("120 s", description="Half of the machines join sooner after their launch call.")
    sigma: Annotated[float, Field(ge=0.0, le=3.0)] = written(
        0.25, description="Standard deviation of the logarithm. 0: always the median."
    )


class RateSettings(SiteModel):
    """A bucket of tokens."""

    per_second: Positive = Field(description="In the long run.")
    burst: PositiveCount = Field(description="At once.")


class OutageSettings(SiteModel):
    """Times in which every call fails; exponential."""

    between: Period = Field(description="Mean time from the end of one to the start of the next.")
    mean: Period = Field(description="Mean time that one takes.")


class ReclaimSettings(SiteModel):
    """Machines that the cloud takes back."""

    share: Share = Field(description="Part of the machines that this happens to, from 0 to 1.")
    after: Period = Field(description="Mean time from the launch until it happens; exponential.")


class SimulatedShapeSettings(SiteModel):
    """A kind of machine, where the site file does not say what it has."""

    cores: PositiveCount = Field(description="Cores.")
    memory: PositiveSize = Field(description="Memory.")
    disk: Size = written("20 GiB", description="Disk for jobs.")
    gpus: Count = written(0, description="GPUs.")
    price: Price = written(0.0, description="Per hour.")

    def shape(self, name: str) -> Shape:
        """As the cloud would offer it."""
        return Shape(ShapeName(name), Resources(self.cores, self.memory, self.disk, self.gpus), self.price)


class CloudModelSettings(SiteModel):
    """``[clouds.NAME]``: how a cloud of the site file behaves."""

    boot: BootSettings = written({}, description="How long machines take from the launch call to their join.")
    billing: BillingSettings | None = written(
        None, description="What is charged. Left out: what the site file says; without one, by the second."
    )
    launches: RateSettings | None = written(
        None, description="How many machines may be launched. Left out: any number."
    )
    calls: RateSettings | None = written(None, description="How many calls may be made. Left out: any number.")
    outages: OutageSettings | None = written(None, description="Left out: there are none.")
    reclaim: ReclaimSettings | None = written(None, description="Left out: no machine is taken back.")
    dead_on_arrival: Share = written(0.0, description="Part of the machines that never join, from 0 to 1.")
    zones: tuple[str, ...] = written((), description="Its zones, in order of preference.")
    list_lag: Duration = written("0 s", description="A new machine is listed only after this time.")
    end_time: Duration = written("0 s", description="From the terminate call to the end of the machine; charged.")
    shapes: Mapping[ShapeKey, SimulatedShapeSettings] = written(
        {}, description="Its shapes, where the site file does not say what they have."
    )

    def model(self, shapes: tuple[Shape, ...], billing: Billing) -> CloudModel:
        """The plain value. ``shapes`` and ``billing`` are the site file's; those of this file come before them."""
        own = {name: settings.shape(name) for name, settings in self.shapes.items()}
        every = {str(shape.name): shape for shape in shapes} | own
        return CloudModel(
            shapes=tuple(every.values()),
            boot=BootTime(self.boot.median, self.boot.sigma),
            billing=billing if self.billing is None else self.billing.billing(),
            launches=None if self.launches is None else RateLimit(self.launches.per_second, self.launches.burst),
            calls=None if self.calls is None else RateLimit(self.calls.per_second, self.calls.burst),
            outages=None if self.outages is None else Outages(self.outages.between, self.outages.mean),
            reclaim=None if self.reclaim is None else Reclaim(self.reclaim.share, self.reclaim.after),
            dead_on_arrival=self.dead_on_arrival,
            zones=tuple(Zone(zone) for zone in self.zones),
            list_lag=self.list_lag,
            end_time=self.end_time,
        )


class ModelSettings(SiteModel):
    """The whole file."""

    order: Order = written("first-fit", description="Which waiting job starts: `first-fit` or `in-order`.")
    placement: Placement = written(
        "fullest", description="Where it starts: on the `fullest` machine or the `emptiest`."
    )
    step: Period = written("30 s", description="How often the controller looks while there is news.")
    contact_timeout: Period = written("5 min", description="When the batch system gives up a machine that died.")
    clouds: Mapping[str, CloudModelSettings] = written({}, description="How the clouds behave, by name.")
    faults: tuple[FaultSettings, ...] = written((), description="What goes wrong, and when.")


def read_model(path: Path) -> ModelSettings:
    """The model that a file describes. SiteFileError for the first thing that is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        raise SiteFileError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SiteFileError(f"is no TOML: {error}", where=str(path)) from None
    try:
        return ModelSettings.model_validate(table)
    except ValidationError as error:
        found = list(troubles(error, ModelSettings, (), table))
        places = Locations(text)
        problems = [
            SiteFileProblem(one.what, path=path, position=places.find(one.keys), keys=one.keys, right=one.right)
            for one in found
        ]
        raise min(problems, key=lambda problem: problem.position or Position(1, 1)) from None


def make_setting(site: Path | None, model: ModelSettings, *, queue: str | None = None) -> Setting:
    """The setting of a production site file, or the standard one. SiteFileError when it cannot be simulated."""
    if site is None:
        base = standard_setting()
        shapes = {name: each.shapes for name, each in base.clouds.items()}
    else:
        read = load(site)
        rules = read.rules()
        shapes = {name: _shapes_of(settings) for name, settings in read.clouds.items()}
        chosen = _queue_of(rules, queue, site)
        groups = {name: group for name, group in rules.groups.items() if group.queue == chosen}
        base = Setting(site.name, replace(rules, groups=groups, queues=(chosen,)), chosen, {})
    unknown = [name for name in model.clouds if name not in shapes]
    if unknown:
        raise SiteFileError(
            f"there is no cloud {unknown[0]!r}",
            where=f"model, clouds.{unknown[0]}",
            remedy=f"there are: {_list(shapes)}",
        )
    used = {cloud for group in base.groups for cloud in group.clouds}
    plain = CloudModelSettings()
    clouds = {
        name: replace(
            model.clouds.get(str(name), plain).model(shapes[name], base.rules.clouds[name].billing),
            quota=base.rules.clouds[name].quota,
        )
        for name in shapes
        if name in used
    }
    _check_shapes(base, clouds)
    faults = tuple(each.fault() for each in model.faults)
    check_faults(faults, clouds)
    rules = replace(base.rules, clouds={name: each for name, each in base.rules.clouds.items() if name in clouds})
    return replace(
        base,
        rules=rules,
        clouds=clouds,
        step=model.step,
        order=model.order,
        placement=model.placement,
        contact_timeout=model.contact_timeout,
        faults=faults,
    )


def _queue_of(rules: SiteRules, queue: str | None, site: Path) -> QueueName:
    serving = {str(group.queue) for group in rules.groups.values()}
    if queue is None and len(serving) == 1:
        return QueueName(serving.pop())
    if queue is not None and queue in serving:
        return QueueName(queue)
    what = f"it has {len(serving)} queues with workers" if queue is None else f"no group serves a queue {queue!r}"
    raise SiteFileError(what, where=str(site), remedy=f"name one with --queue: {_list(serving)}")


def _shapes_of(settings: CloudSettings) -> tuple[Shape, ...]:
    """Those of which the site file itself says what they have, whatever the cloud's type."""
    tables: dict[str, dict[str, Any]] = settings.model_dump().get("shapes") or {}
    return tuple(
        Shape(
            ShapeName(name),
            Resources(table["cores"], table["memory"], table.get("disk") or 0, table.get("gpus") or 0),
            table.get("price") or 0.0,
        )
        for name, table in tables.items()
        if table.get("cores") is not None and table.get("memory") is not None
    )


def _check_shapes(setting: Setting, clouds: Mapping[CloudName, CloudModel]) -> None:
    """SiteFileError when a group names a shape of which nobody says what it has, or a cloud has none."""
    for group in setting.groups:
        offered = {shape.name for cloud in group.clouds for shape in clouds[cloud].shapes}
        lacking = [shape for shape in group.shapes if shape not in offered]
        if lacking or not offered:
            cloud, shape = group.clouds[0], lacking[0] if lacking else "NAME"
            raise SiteFileError(
                f"what a machine of shape {shape} has is known to the cloud alone",
                where=f"{setting.name}, groups.{group.name}",
                remedy=f"say it in a file for --model: [clouds.{cloud}.shapes.{shape}] cores = ..., memory = ...",
            )


def _list(names: object) -> str:
    return ", ".join(sorted(str(name) for name in names)) if isinstance(names, set | dict) else str(names)

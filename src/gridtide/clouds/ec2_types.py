"""What instance types have: as the site file says, else as the cloud says, which is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from gridtide.clouds.ec2_api import Ec2Api
from gridtide.clouds.ec2_machine import InstanceType
from gridtide.errors import LaunchRejected
from gridtide.model.ids import ShapeName
from gridtide.model.resources import Resources, Shape

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

log = structlog.get_logger("gridtide.clouds")

_TYPES: Final = 100
"""Instance types in one question: values in one filter are limited to 200."""
_LEFT_ALONE: Final = 300.0
"""Seconds. Shorter: a call more with each listing, for nothing. Longer: what a slip of a gateway hid stays hidden."""


class Types:
    """Those that the site file offers, and those of other machines of the account."""

    def __init__(self, api: Ec2Api, offered: Sequence[InstanceType]) -> None:
        self.offered = {kind.name: kind for kind in offered}
        self._api = api
        self._known: dict[ShapeName, Resources | None] = {}
        """Disk aside; None: the cloud does not know it. They never change."""
        self._ask_again = 0.0
        """Loop time."""

    @property
    def unwritten(self) -> list[ShapeName]:
        """Those of the site file whose cores or memory it does not tell."""
        return [kind.name for kind in self.offered.values() if kind.cores is None or kind.memory is None]

    def shapes(self) -> tuple[Shape, ...]:
        """What is offered, without those that nobody knows."""
        shapes = [Shape(kind.name, self.resources(kind.name), kind.price) for kind in self.offered.values()]
        return tuple(shape for shape in shapes if shape.resources.cores)

    async def learn(self, types: Iterable[ShapeName], until: float) -> None:
        """Ask what these have, unless it is known. Raises CloudError."""
        new = sorted(set(types) - self._known.keys())
        for start in range(0, len(new), _TYPES):
            names = new[start : start + _TYPES]
            asked: list[FilterTypeDef] = [{"Name": "instance-type", "Values": names}]

            def page(
                client: EC2Client, token: str, asked: list[FilterTypeDef] = asked
            ) -> tuple[list[tuple[ShapeName, Resources]], str]:
                at = {"NextToken": token} if token else {}
                answer = client.describe_instance_types(Filters=asked, **at)  # type: ignore[arg-type]
                rows = []
                for each in answer["InstanceTypes"]:
                    gpus = sum(int(gpu.get("Count", 0)) for gpu in each.get("GpuInfo", {}).get("Gpus", ()))
                    has = Resources(each["VCpuInfo"]["DefaultVCpus"], each["MemoryInfo"]["SizeInMiB"], 0, gpus)
                    rows.append((ShapeName(str(each["InstanceType"])), has))
                return rows, answer.get("NextToken", "")

            found = dict(await self._api.pages(page, until))
            self._known.update({name: found.get(name) for name in names})

    async def learn_if_told(self, types: Iterable[ShapeName], until: float) -> None:
        """The same, but an endpoint that refuses the question is left alone with it for some minutes.

        Foreign machines then count with what a listing itself tells of them.
        """
        now = asyncio.get_running_loop().time()
        if now < self._ask_again:
            return
        try:
            await self.learn(types, until)
        except LaunchRejected as error:
            self._ask_again = now + _LEFT_ALONE
            log.debug("instance types are not known", error=str(error))

    def resources(self, name: ShapeName) -> Resources:
        """What the site file says, else what the cloud said; nothing at all when neither knows."""
        known = self._known.get(name) or Resources()
        kind = self.offered.get(name)
        if kind is None:
            return known
        cores = known.cores if kind.cores is None else kind.cores
        memory = known.memory if kind.memory is None else kind.memory
        return Resources(cores, memory, kind.disk, known.gpus if kind.gpus is None else kind.gpus)

"""What a launch refers to: images of an EC2 account by id, by name, or by the tag ``Name``; launch templates."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from gridtide.clouds.ec2_api import Ec2Api, Kind
from gridtide.clouds.ec2_machine import template_of
from gridtide.errors import ImageNotFound

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef, ResponseLaunchTemplateDataTypeDef

_KEPT: Final = 300.0
"""Seconds that an answer is used for. Longer: a new image of the same name is booted later. Shorter: more calls."""
_IMAGE_ID: Final = re.compile(r"ami-[0-9a-f]{8,17}", re.ASCII)


class Images:
    """Remembers what was found for some minutes, so that a bulk launch asks once."""

    def __init__(self, api: Ec2Api) -> None:
        self._api = api
        self._kept: dict[tuple[str, str], tuple[float, Any]] = {}
        self._asking = asyncio.Lock()

    async def find(self, name: str, until: float) -> ImageTypeDef:
        """The newest available one of this id, name, or tag ``Name``. Raises CloudError."""
        found: ImageTypeDef = await self._keep(("image", name), lambda: self._look(name, until))
        return found

    async def template(self, written: str, until: float) -> ResponseLaunchTemplateDataTypeDef:
        """What a launch template says. Raises CloudError."""
        found: ResponseLaunchTemplateDataTypeDef = await self._keep(
            ("template", written), lambda: self._look_at_template(written, until)
        )
        return found

    async def _keep(self, key: tuple[str, str], look: Callable[[], Awaitable[Any]]) -> Any:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            kept = self._kept.get(key)
            if kept is None or now >= kept[0] + _KEPT:
                kept = now, await look()
                self._kept[key] = kept
            return kept[1]

    async def _look_at_template(self, written: str, until: float) -> ResponseLaunchTemplateDataTypeDef:
        wanted = template_of(written)
        version = wanted.pop("Version")

        def ask(client: EC2Client) -> ResponseLaunchTemplateDataTypeDef:
            answer = client.describe_launch_template_versions(Versions=[version], ResolveAlias=True, **wanted)  # type: ignore[arg-type]
            return answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]

        return await self._api.call(Kind.READ, ask, until)

    async def _look(self, name: str, until: float) -> ImageTypeDef:
        keys = ("image-id",) if _IMAGE_ID.fullmatch(name) else ("name", "tag:Name")
        for key in keys:
            wanted: list[FilterTypeDef] = [{"Name": key, "Values": [_literal(name)]}]
            found = [each for each in await self._list(wanted, key, until) if each.get("State") == "available"]
            if found:
                return max(found, key=lambda each: (each.get("CreationDate", ""), each["ImageId"]))
        raise ImageNotFound(
            f"no image that can be used has the id, name or tag Name {name!r}",
            where=self._api.where,
            remedy="check the region, and that the account owns the image or was given its id",
        )

    async def _list(self, wanted: list[FilterTypeDef], key: str, until: float) -> list[ImageTypeDef]:
        # By name only our own: anybody may publish an image under any name.
        owners = [] if key == "image-id" else ["self"]

        def page(client: EC2Client, token: str) -> tuple[list[ImageTypeDef], str]:
            at = {"NextToken": token} if token else {}
            answer = client.describe_images(Filters=wanted, Owners=owners, **at)  # type: ignore[arg-type]
            return [each for each in answer["Images"] if each["ImageId"]], answer.get("NextToken", "")

        return await self._api.pages(page, until)


def _literal(name: str) -> str:
    """Filters know ``*`` and ``?`` (EC2 user guide, "Filtering considerations")."""
    return re.sub(r"([\\*?])", r"\\\1", name)

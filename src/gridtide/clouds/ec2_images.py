"""Images of an EC2 account: by id, by name, or by the tag ``Name``."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from gridtide.clouds.ec2_api import Ec2Api
from gridtide.errors import ImageNotFound

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, ImageTypeDef

_KEPT: Final = 300.0
"""Seconds that an answer is used for. Longer: a new image of the same name is booted later. Shorter: more calls."""
_IMAGE_ID: Final = re.compile(r"ami-[0-9a-f]{8,17}", re.ASCII)


class Images:
    """Remembers what was found for some minutes, so that a bulk launch asks once."""

    def __init__(self, api: Ec2Api) -> None:
        self._api = api
        self._found: dict[str, tuple[float, ImageTypeDef]] = {}
        self._asking = asyncio.Lock()

    async def find(self, name: str, until: float) -> ImageTypeDef:
        """The newest available one of this id, name, or tag ``Name``. Raises CloudError."""
        async with self._asking:
            now = asyncio.get_running_loop().time()
            kept = self._found.get(name)
            if kept is None or now >= kept[0] + _KEPT:
                kept = now, await self._look(name, until)
                self._found[name] = kept
            return kept[1]

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
            return answer["Images"], answer.get("NextToken", "")

        return await self._api.pages(page, until)


def _literal(name: str) -> str:
    """Filters know ``*`` and ``?`` (EC2 user guide, "Filtering considerations")."""
    return re.sub(r"([\\*?])", r"\\\1", name)

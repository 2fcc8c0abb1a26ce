"""What a launch refers to, by the names that people use: flavours, images, networks, server groups."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote, urlencode

from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_errors import ODD, typed
from gridtide.clouds.openstack_machine import Flavor, FlavorChoice, Json, OpenstackSettings, flavor
from gridtide.clouds.openstack_pages import pages
from gridtide.clouds.refusals import MachineNotFound
from gridtide.errors import ImageNotFound, LaunchRejected
from gridtide.model.ids import ShapeName

KEPT: Final = 300.0
"""Seconds that an answer is used for. Longer: a new image of the same name is booted later. Shorter: more calls."""
_PAGE: Final = 1000
ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class Catalogue:
    """Remembers what was found for some minutes, so that a bulk launch asks once."""

    def __init__(self, api: OpenstackApi, settings: OpenstackSettings) -> None:
        self._api = api
        self._settings = settings
        self._kept: dict[tuple[str, str], tuple[float, Any]] = {}
        self._asking = asyncio.Lock()

    def forget(self) -> None:
        """Ask again next time: an id was refused."""
        self._kept.clear()

    async def flavors(self, until: float, *, anew: bool = False) -> dict[ShapeName, Flavor]:
        """Those of the site file, in its order; all by name when it names none. Raises CloudError."""
        if anew:
            self._kept.pop(("flavors", ""), None)
        found: dict[ShapeName, Flavor] = await self._keep(("flavors", ""), lambda: self._list_flavors(until))
        return found

    async def image(self, name: str, until: float) -> str:
        """The newest active one of this name and the wanted properties, or the one of this id. Raises CloudError."""
        found: str = await self._keep(("image", name), lambda: self._find_image(name, until))
        return found

    async def networks(self, until: float) -> str | tuple[str, ...]:
        """Ids, or what the site file says in place of names. Raises CloudError."""
        wanted = self._settings.networks
        if isinstance(wanted, str):
            return wanted
        return tuple(
            [await self._keep(("network", name), lambda name=name: self._find_network(name, until)) for name in wanted]  # type: ignore[misc]
        )

    async def server_group(self, until: float) -> str:
        """Its id; empty where none is wanted. Raises CloudError."""
        name = self._settings.server_group
        return await self._keep(("group", name), lambda: self._find_group(name, until)) if name else ""

    async def _keep(self, key: tuple[str, str], find: Callable[[], Awaitable[Any]]) -> Any:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            kept = self._kept.get(key)
            if kept is None or now >= kept[0] + KEPT:
                try:
                    kept = now, await find()
                except ODD as error:
                    raise typed(error, self._api.where) from error
                self._kept[key] = kept
            return kept[1]

    async def _list_flavors(self, until: float) -> dict[ShapeName, Flavor]:
        rows = await pages(self._api, "/flavors/detail?", "flavors", _PAGE, until)
        by_name = {str(each["name"]): each for each in rows}
        chosen = self._settings.flavors or tuple(FlavorChoice(ShapeName(name)) for name in sorted(by_name))
        return {each.name: flavor(by_name[each.name], each, self._settings) for each in chosen if each.name in by_name}

    async def _find_image(self, name: str, until: float) -> str:
        found = await self._image_of_id(name, until) if ID.fullmatch(name) else []
        if not found:
            wanted = urlencode({**self._settings.image_properties, "name": name, "status": "active", "limit": _PAGE})
            found = (await self._api.call(Service.IMAGE, "GET", f"/images?{wanted}", until))["images"]
        if not found:
            having = ", ".join(f"{key} = {value}" for key, value in self._settings.image_properties.items())
            raise ImageNotFound(
                f"no active image has the name or id {name!r}" + (f" and {having}" if having else ""),
                where=self._api.where,
                remedy="openstack image list shows what the project sees",
            )
        return str(max(found, key=lambda each: (each["created_at"], each["id"]))["id"])

    async def _image_of_id(self, name: str, until: float) -> list[Json]:
        try:
            found = await self._api.call(Service.IMAGE, "GET", f"/images/{name}", until)
        except (ImageNotFound, MachineNotFound):
            return []
        return [found] if found["status"] == "active" else []

    async def _find_network(self, name: str, until: float) -> str:
        key = "id" if ID.fullmatch(name) else "name"
        path = f"/v2.0/networks?fields=id&{key}={quote(name, safe='')}"
        found = (await self._api.call(Service.NETWORK, "GET", path, until))["networks"]
        return self._only("network", name, [str(each["id"]) for each in found])

    async def _find_group(self, name: str, until: float) -> str:
        rows = (await self._api.call(Service.COMPUTE, "GET", "/os-server-groups", until))["server_groups"]
        return self._only(
            "server group", name, [str(each["id"]) for each in rows if name in (each["name"], each["id"])]
        )

    def _only(self, what: str, name: str, found: list[str]) -> str:
        if len(found) == 1:
            return found[0]
        how = f"no {what} has" if not found else f"{len(found)} {what}s have"
        remedy = f"openstack {what} list shows what the project sees" if not found else "give its id"
        raise LaunchRejected(f"{how} the name or id {name!r}", where=self._api.where, remedy=remedy)

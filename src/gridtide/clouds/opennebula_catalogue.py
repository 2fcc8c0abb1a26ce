"""What a launch refers to, by the names that people use: templates, images, networks; and who we are.

A name is one of our own user's, else of the administrator's (user 0): anybody may publish an image under any name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gridtide.clouds.opennebula_api import OpennebulaApi
from gridtide.clouds.opennebula_machine import ID, OpennebulaSettings, Template, boot_disk, template, vectors
from gridtide.clouds.opennebula_quota import Limit, limits
from gridtide.errors import ImageNotFound, LaunchRejected
from gridtide.model.ids import ShapeName

KEPT: Final = 300.0
"""Seconds that an answer is used for. Longer: a new image of the same name is booted later. Shorter: more calls."""
_ALL: Final = (-2, -1, -1)
"""Of a pool: what the user may use, whoever has it, without an end."""
_ADMINISTRATOR: Final = 0
_USABLE: Final = frozenset({1, 2})
"""States of an image: ready, and used by others."""


@dataclass(frozen=True, slots=True)
class User:
    """As whom calls are made. No secret is shown."""

    id: int
    name: str
    limits: tuple[Limit, ...]
    tokens: tuple[tuple[str, int], ...]
    """Login tokens, and when they end (epoch seconds; below zero: never)."""

    def __repr__(self) -> str:
        return f"User({self.id}, {self.name!r})"


@dataclass(frozen=True, slots=True)
class Named:
    """Something of a pool. Figures that it has not are 0."""

    id: int
    owner: int
    name: str
    body: Mapping[str, Any]
    state: int
    size: int
    persistent: int


class Catalogue:
    """Remembers what was found for some minutes, so that a bulk launch asks once."""

    def __init__(self, api: OpennebulaApi, settings: OpennebulaSettings) -> None:
        self._api = api
        self._settings = settings
        self._kept: dict[str, tuple[float, Any]] = {}
        self._asking = asyncio.Lock()

    def forget(self) -> None:
        """Ask again next time: an id was refused."""
        self._kept.clear()

    async def user(self, until: float) -> User:
        """As whom calls are made, with the quotas of now. Raises CloudError."""
        found = await self._api.call("user.info", -1, read=_user, until=until)
        self._kept["me"] = (asyncio.get_running_loop().time(), found.id)
        return found

    async def me(self, until: float) -> int:
        """The number of our user. Raises CloudError."""

        async def ask() -> int:
            return (await self.user(until)).id

        found: int = await self._keep("me", ask)
        return found

    async def limits(self, until: float) -> tuple[Limit, ...]:
        """Of the user and its group, as they are now. Raises CloudError."""
        group = await self._api.call(
            "group.info", -1, read=lambda group: limits("group", group, group.DEFAULT_GROUP_QUOTAS), until=until
        )
        return (*(await self.user(until)).limits, *group)

    async def templates(self, until: float, *, anew: bool = False) -> dict[ShapeName, Template]:
        """Those of the site file, in its order, without those that are not there. Raises CloudError."""
        if anew:
            self._kept.pop("templates", None)
        rows: list[Named] = await self._keep("templates", lambda: self._pool("templatepool.info", "VMTEMPLATE", until))
        me = await self.me(until)
        found: dict[ShapeName, Template] = {}
        for choice in self._settings.templates:
            row = _choose(choice.template, rows, me)
            if row is not None:
                found[choice.name] = template(row.id, row.body, choice, await self._disk(row, me, until))
        return found

    async def image(self, name: str, until: float) -> int:
        """The id of one that several machines can use. Raises CloudError."""
        found = _choose(name, await self._images(until), await self.me(until))
        if found is None:
            what = f"this user has no image that is called {name!r}, and the administrator none to use"
            if ID.fullmatch(name):
                what = f"there is no image {name} that this user may use"
            raise ImageNotFound(what, where=self._api.where, remedy="oneimage list shows them; others go by their id")
        if found.state not in _USABLE:
            what = f"image {found.id} ({found.name}) cannot be used now: it is in state {found.state}"
            raise ImageNotFound(what, where=self._api.where, remedy="oneimage list shows what its state means")
        if found.persistent:
            what = f"image {found.id} ({found.name}) is persistent: one machine alone can use it"
            raise LaunchRejected(what, where=self._api.where, remedy=f"oneimage nonpersistent {found.id}")
        return found.id

    async def networks(self, until: float) -> tuple[int, ...]:
        """Ids; empty: the template's. Raises CloudError."""
        if not self._settings.networks:
            return ()
        rows: list[Named] = await self._keep("networks", lambda: self._pool("vnpool.info", "VNET", until))
        me = await self.me(until)
        chosen = {name: _choose(name, rows, me) for name in self._settings.networks}
        for name, network in chosen.items():
            if network is None:
                what = f"neither this user nor the administrator has a network that is called {name!r}"
                raise LaunchRejected(what, where=self._api.where, remedy="onevnet list shows them; others by their id")
        return tuple(each.id for each in chosen.values() if each is not None)

    async def _disk(self, row: Named, me: int, until: float) -> int:
        """MiB of the image that a template boots from; 0 where that is not known."""
        disk, _ = boot_disk(vectors(row.body, "DISK"))
        name = disk.get("IMAGE_ID") or disk.get("IMAGE")
        if not name or "SIZE" in disk:
            return 0
        image = _choose(name, await self._images(until), me)
        return 0 if image is None else image.size

    async def _images(self, until: float) -> list[Named]:
        found: list[Named] = await self._keep("images", lambda: self._pool("imagepool.info", "IMAGE", until))
        return found

    async def _pool(self, method: str, element: str, until: float) -> list[Named]:
        def read(pool: Any) -> list[Named]:
            return [_named(row) for row in getattr(pool, element)]

        return await self._api.call(method, *_ALL, read=read, until=until)

    async def _keep(self, key: str, find: Callable[[], Awaitable[Any]]) -> Any:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            kept = self._kept.get(key)
            if kept is None or now >= kept[0] + KEPT:
                kept = now, await find()
                self._kept[key] = kept
            return kept[1]


def _named(row: Any) -> Named:
    """``row``: pyone's."""
    figures = (int(getattr(row, name, None) or 0) for name in ("STATE", "SIZE", "PERSISTENT"))
    return Named(int(row.ID), int(row.UID), str(row.NAME), getattr(row, "TEMPLATE", None) or {}, *figures)


def _choose(name: str, rows: Iterable[Named], me: int) -> Named | None:
    """By its number; else ours of this name; else the administrator's."""
    if ID.fullmatch(name):
        return next((each for each in rows if each.id == int(name)), None)
    named = {each.owner: each for each in rows if each.name == name}
    return named.get(me) or named.get(_ADMINISTRATOR)


def _user(document: Any) -> User:
    tokens = tuple((str(each.TOKEN), int(each.EXPIRATION_TIME)) for each in document.LOGIN_TOKEN or ())
    found = limits("user", document, document.DEFAULT_USER_QUOTAS)
    return User(int(document.ID), str(document.NAME), found, tokens)

"""Listings of Nova's, whole or an error: a machine that a listing leaves out would be believed gone."""

from __future__ import annotations

import asyncio
from typing import Final

from gridtide.clouds.openstack_api import OpenstackApi, Service
from gridtide.clouds.openstack_errors import typed
from gridtide.clouds.openstack_machine import Json
from gridtide.errors import CloudUnavailable

LEAST_PAGE: Final = 100
"""Rows that a page of any cloud has, if there are so many (Nova's ``max_limit`` is 1000, unless a cloud changes it)."""
_BUILDING_PAUSE: Final = 0.5
"""Seconds before a listing is begun again, see pages()."""


async def pages(api: OpenstackApi, path: str, key: str, limit: int, until: float) -> list[Json]:
    """All pages of a listing of Nova's. ``path`` ends where the query goes on. Raises CloudError.

    A full page that ends amid machines that are being built is no safe place to go on from: Nova lists launches that
    are not in a cell's database yet before all others, in an order of their own, and from then on leaves them out.
    """
    while True:
        found = await _pages(api, path, key, limit, until)
        if found is not None:
            return found
        await asyncio.sleep(_BUILDING_PAUSE)


async def _pages(api: OpenstackApi, path: str, key: str, limit: int, until: float) -> list[Json] | None:
    """None when there is no safe place to go on from."""
    found: dict[str, Json] = {}
    marker = ""
    while True:
        after = f"&marker={marker}" if marker else ""
        answer = await api.call(Service.COMPUTE, "GET", f"{path}limit={limit}{after}", until)
        try:
            rows = {str(each["id"]): each for each in answer[key]}
        except (KeyError, TypeError) as error:
            raise typed(error, api.where) from error
        settled = [name for name, row in rows.items() if row.get("status") != "BUILD"]
        building = len(rows) - len(settled)
        # Nova takes out what it has found twice, among launches and in a cell: the page is too short then, and
        # has no link to the next one (nova/compute/api.py, get_all; nova/api/openstack/common.py).
        full = bool(answer.get(f"{key}_links"))
        last = not full and (
            not building or not rows.keys() - found.keys() or len(rows) + building < min(limit, LEAST_PAGE)
        )
        if full and not settled:
            return None
        if not last and not rows.keys() - found.keys():
            raise CloudUnavailable("its pages go round in a circle", where=api.where)
        found.update(rows)
        if last:
            return list(found.values())
        marker = settled[-1] if settled else next(reversed(rows))

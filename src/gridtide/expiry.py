"""Credentials of clouds that end soon, told in the service's log: nobody checks a site that works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gridtide.clouds.protocol import Cloud, HasCredentials, Level
from gridtide.errors import CloudError
from gridtide.model.ids import CloudName

log = structlog.get_logger("gridtide.clouds")

EVERY: Final = 6 * 3600.0
"""Seconds between two looks. Credentials are warned of for 8 days: shorter tells nothing new, and costs a call each."""
_PATIENCE: Final = 20.0
"""Seconds for one cloud."""


async def watch(clouds: Callable[[], Mapping[CloudName, Cloud]]) -> None:
    """Until it is cancelled. ``clouds``: those of the site as they are now."""
    while True:
        await asyncio.gather(
            *(_look(name, each) for name, each in clouds().items() if isinstance(each, HasCredentials))
        )
        await asyncio.sleep(EVERY)


async def _look(name: CloudName, cloud: HasCredentials) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await cloud.credentials()
    except (CloudError, TimeoutError):
        return  # that it does not answer, or not to these credentials, its readings tell
    if found.level is not Level.OK:
        log.warning("credentials", cloud=name, state=found.text, remedy=found.remedy)

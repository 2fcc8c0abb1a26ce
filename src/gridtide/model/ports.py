"""A port for each worker, for machines that share an address with others and must be called."""

from __future__ import annotations

import zlib
from typing import Final

from gridtide.model.ids import WorkerId

FIRST: Final = 10_240
LAST: Final = 32_767
"""Below those that Linux gives to outgoing connections (ip_local_port_range begins at 32768); above it a port may be
taken by any program at any moment."""


def port_of(worker: WorkerId) -> int:
    """Follows from the worker's id alone, so that the cloud that forwards it and the queue that calls it agree without
    a word. Two of 50 workers share one in one site of twenty: the second machine cannot be made, and another is."""
    return FIRST + zlib.crc32(worker.encode()) % (LAST - FIRST + 1)

"""What can be wrong with a pool.

QueueError
├── PoolUnreachable      nobody answers, or not in time
├── PoolRefuses          it answers, but not us: token, key, or its lists of who may do what
└── PoolIncomplete       it answers, but what it says cannot be the whole truth
    └── PoolRefilling    its collector was just started; it says when it will know
"""

from __future__ import annotations

from typing import Final

from gridtide.errors import QueueError, QueueNotReady


class PoolUnreachable(QueueError):
    """A daemon did not answer in time, or at all."""


class PoolRefuses(QueueError):
    """A daemon does not accept who we are, or does not let us do this."""


class PoolIncomplete(QueueError):
    """An answer that lacks what must be there: it is evidence of nothing."""


class PoolRefilling(QueueNotReady, PoolIncomplete):
    """A collector that was just started has not heard of all nodes yet."""


KINDS: Final[dict[str, type[QueueError]]] = {
    "unreachable": PoolUnreachable,
    "refused": PoolRefuses,
    "incomplete": PoolIncomplete,
}
"""By the word that the asking process uses."""

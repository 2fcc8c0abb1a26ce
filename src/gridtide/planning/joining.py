"""How long a worker may take to join before it is given up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.rules import GroupRules
from gridtide.model.workers import Worker

UNKNOWN: Final = 600.0
"""Seconds while too few boots are known: elastiq's own estimate (seeds-digest, section 5)."""

SHORTEST: Final = 60.0
"""Seconds. Below it the noise of a busy cloud would end machines that are fine."""

LONGEST: Final = 3600.0
"""Seconds. Above it a machine that hangs costs more than a new try; one that needs longer wants a deadline of its own
in the site file."""

ENOUGH: Final = 5
"""Boots from which a time can be learned. With fewer, the first quick one would condemn all others."""

RETURN_ALLOWANCE: Final = 60.0
"""Seconds that a machine has to come back after a time in which no controller led: agents ask again every 15 s at
most. Smaller: machines that were ready while nobody answered are ended. Larger: a hanging one is found later."""

TOKEN_MARGIN: Final = 60.0
"""Seconds that a join token outlives its worker's deadline. Smaller: a machine that joins at the last moment is refused
although nobody has given it up."""


def join_deadline(group: GroupRules | None, worker: Worker, known: Mapping[BootKey, BootTimes]) -> float:
    """Seconds from the launch call.

    As the site file says; otherwise three times the 95th percentile of the boots that were alike (of the same shape and
    image, else of the same image: another image may be ten times as large), and twice the longest wait of the latest
    ones. That wait may have been in vain: what did not join is in no percentile, so that machines that have all become
    slower would otherwise be ended one after the other, for ever.
    """
    if group is None:
        return 0.0
    if group.join_deadline is not None:
        return group.join_deadline
    same = known.get(BootKey(worker.cloud, worker.shape.name, worker.image))
    alike = known.get(BootKey(worker.cloud, None, worker.image))
    base = UNKNOWN
    lately = 0.0 if same is None else same.longest_lately
    for times in (same, alike):
        if times is not None and times.p95 is not None and times.count >= ENOUGH:
            base = max(SHORTEST, 3.0 * times.p95)
            lately = max(lately, times.longest_lately)
            break
    return min(LONGEST, max(base, 2.0 * lately))


def token_life(group: GroupRules) -> float:
    """Seconds for which a join token is good, unless its worker joins or is given up before.

    A learned deadline may grow while a machine boots, so the longest one counts. Twice a deadline that is set: a
    service that was away for as long costs no machine.
    """
    longest = LONGEST if group.join_deadline is None else 2.0 * group.join_deadline
    return longest + TOKEN_MARGIN

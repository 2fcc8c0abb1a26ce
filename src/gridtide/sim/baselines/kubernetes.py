"""The two autoscalers of Kubernetes, as far as they can work for jobs that may be neither moved nor ended."""

from __future__ import annotations

from math import ceil
from typing import Final

from gridtide.sim.baselines.base import Baseline, Decision, Sight, lacking, remembering, smallest

SCAN: Final = 10.0
"""Seconds: cluster-autoscaler's scan-interval."""
UNNEEDED: Final = 600.0
"""Seconds: scale-down-unneeded-time."""
AFTER_ADD: Final = 600.0
"""Seconds: scale-down-delay-after-add."""
AT_ONCE: Final = 10
"""max-empty-bulk-delete."""

BATCH: Final = 10.0
"""Seconds: Karpenter's batch-max-duration, and how often it looks for what to disrupt."""
VALIDATION: Final = 15.0
"""Seconds for which a node must stay a candidate. ``consolidateAfter`` itself is 0 s by default."""
BUDGET: Final = 0.1
"""Part of the nodes that may be disrupted at once."""


def cluster_autoscaler(sight: Sight, added: float) -> tuple[Decision, float]:
    """Nodes for pods that fit nowhere; nodes go that were unneeded for ten minutes, ten minutes after the last add.

    The utilisation threshold (0.5) makes no difference: what may not be moved keeps its node, however little it is.
    """
    launch = (sight.machine,) * sum(number for _, number in lacking(sight))
    if launch:
        return Decision(launch=launch), sight.now
    if sight.now < added + AFTER_ADD:
        return Decision(), added
    ripe = [each.worker for each in sight.idle if sight.now - each.since >= UNNEEDED]
    return Decision(end=tuple(ripe[:AT_ONCE])), added


def karpenter(sight: Sight) -> Decision:
    """Nodes of the size that the pending pods need; empty ones go at once, a tenth of the nodes at a time.

    Consolidation of underutilised nodes moves pods, so jobs are marked ``do-not-disrupt`` and only emptiness is left.
    """
    chosen = [(smallest(sight.shapes, need) or sight.machine, number) for need, number in lacking(sight)]
    launch = tuple(shape for shape, number in chosen for _ in range(number))
    ripe = [each.worker for each in sight.idle if sight.now - each.since >= VALIDATION]
    return Decision(launch=launch, end=tuple(ripe[: ceil(BUDGET * sight.joined)]))


CLUSTER_AUTOSCALER: Final = Baseline("cluster-autoscaler", SCAN, remembering(cluster_autoscaler, float("-inf")))
KARPENTER: Final = Baseline("karpenter", BATCH, lambda: karpenter)

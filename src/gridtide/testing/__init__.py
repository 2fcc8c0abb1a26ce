"""For tests, those of users included: conformance suites for drivers, and a world of fakes on any clock.

What drivers of other packages need stands here; the rest is in the modules.
"""

from __future__ import annotations

from gridtide.testing.cloud_bench import Boundary, CloudBench, Fault, NotHere, Step
from gridtide.testing.clouds import CloudConformance
from gridtide.testing.queues import QueueBench, QueueConformance

__all__ = ["Boundary", "CloudBench", "CloudConformance", "Fault", "NotHere", "QueueBench", "QueueConformance", "Step"]

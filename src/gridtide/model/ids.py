"""The kinds of names, so that a worker's id is never passed where a machine's is meant."""

from __future__ import annotations

from typing import NewType

WorkerId = NewType("WorkerId", str)
"""One machine of ours from intent to end; the same in store, cloud tag, host name and queue.

Lower-case letters, digits and hyphens, at most 63 characters, so that it is a legal host name.
"""

MachineId = NewType("MachineId", str)
"""What a cloud calls a machine. Unique within that cloud only."""

GroupName = NewType("GroupName", str)
QueueName = NewType("QueueName", str)
CloudName = NewType("CloudName", str)
ShapeName = NewType("ShapeName", str)
Zone = NewType("Zone", str)
Generation = NewType("Generation", str)
"""Digest of image and context. Workers of another generation than their group's present one are over-old."""

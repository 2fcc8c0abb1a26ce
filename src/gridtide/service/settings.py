"""What may be set about the service. ``gridtide.site`` makes it from the site file."""

from __future__ import annotations

from dataclasses import dataclass

from gridtide.model.ids import GroupName, QueueName

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Fixed while the service runs."""

    site: str
    """The site's name, shown by ``GET /v1/status``."""
    aliec2_group: GroupName | None = None
    """The group whose workers ``POST /spawn`` makes. None: the three AliEC2 routes do not exist."""
    pilot_queues: frozenset[QueueName] | None = None
    """The queues that the pilot queue serves; None: every queue of the site. Workers of other queues are never asked
    about there, because it would take them for strangers and tell them to stop."""
    trusted_proxies: frozenset[str] = frozenset()
    """Addresses whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed; nobody else's are."""
    largest_file: int = 16 * 1024 * MIB
    """Bytes in one uploaded input or output; more is refused with 413."""
    body_patience: float = 60.0
    """Seconds without a byte of a request's body after which the request is given up. Too small a value cuts off
    workers on a slow line, too large a one lets an idle client hold a connection."""
    follow_interval: float = 0.5
    """Seconds between two looks of a followed log or event stream. Each look is one store read per follower."""
    followers: int = 200
    """Log and event streams followed at the same time; one more is told to come back later (503)."""

"""The agent's context file (docs/worker-protocol.md). Other formats wrap this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gridtide.model.demand import Attribute
from gridtide.model.workers import Worker

VERSION = 1


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What is the same for every machine of the site."""

    service: tuple[str, ...]
    """Addresses at which workers reach the service, tried in turn."""
    ca: str | None
    """PEM of the only authority that a worker trusts; None on plain loopback."""
    shutdown: str
    """``exit`` where the agent is the machine, ``poweroff`` where it is in one."""
    privileged: bool = False
    """Whether the agent must be root in its machine: it runs a batch system's daemons there."""


def agent_context(
    worker: Worker, join_token: str, settings: ContextSettings, attributes: Mapping[str, Attribute]
) -> bytes:
    """The context of one worker, as JSON."""
    return json.dumps(agent_document(worker, join_token, settings, attributes), indent=1).encode()


def agent_document(
    worker: Worker, join_token: str, settings: ContextSettings, attributes: Mapping[str, Attribute]
) -> dict[str, object]:
    """The same as an object."""
    resources = worker.shape.resources
    document: dict[str, object] = {
        "version": VERSION,
        "worker": worker.id,
        "group": worker.group,
        "service": list(settings.service),
        "join_token": join_token,
        "shutdown": settings.shutdown,
        "resources": {
            "cores": resources.cores,
            "memory": resources.memory,
            "disk": resources.disk,
            "gpus": resources.gpus,
        },
        "attributes": {**attributes, "GridtideGroup": worker.group, "GridtideShape": worker.shape.name},
    }
    if settings.privileged:
        document["privileged"] = True
    if settings.ca is not None:
        document["ca"] = settings.ca
    return document

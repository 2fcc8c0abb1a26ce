"""The user-data of one machine: its agent's context and the layers, in its format, within its cloud's limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gridtide.context.agent import ContextSettings, agent_document
from gridtide.context.formats import COMPRESSIBLE, compressed, render
from gridtide.context.layers import Layer, LayerKind, Part, parts_of
from gridtide.errors import ContextError
from gridtide.model.contexts import ContextFormat
from gridtide.model.demand import Attribute
from gridtide.model.workers import Worker

_BOOTSTRAP: Final = Path(__file__).parent / "bootstrap.py"

_RUNNABLE: Final = frozenset({LayerKind.SCRIPT, LayerKind.BOOTHOOK})
"""What can be fetched and run later. The rest must be in the user-data, where the image's own program reads it."""


@dataclass(frozen=True, slots=True)
class Telling:
    """How the machines of one group on one cloud are told what they are."""

    settings: ContextSettings
    format: ContextFormat
    layers: tuple[Layer, ...]
    limit: int | None
    """Bytes that the cloud takes as user-data; None: any number."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """The site file's own, beside those of :func:`variables_of`."""


@dataclass(frozen=True, slots=True)
class UserData:
    """What a machine gets at its launch, and what it fetches with its join token because it did not fit."""

    content: bytes = field(repr=False)
    fetched: bytes | None = field(repr=False)


def user_data(worker: Worker, join_token: str, telling: Telling) -> UserData:
    """Render it. ContextError when a layer is wrong, cannot be told in the format, or does not fit in any way."""
    parts = parts_of(telling.layers, {**variables_of(worker, telling.settings), **telling.variables})
    agent = agent_document(worker, join_token, telling.settings, telling.attributes)
    whole = render(telling.format, agent, parts)
    fitting = _fitting(whole, telling)
    if fitting is not None:
        return UserData(fitting, None)
    later = [part for part in parts if part.kind in _RUNNABLE]
    now = [part for part in parts if part.kind not in _RUNNABLE]
    if telling.format is not ContextFormat.AGENT:
        now.append(Part("gridtide-fetch.py", LayerKind.SCRIPT, _BOOTSTRAP.read_text(encoding="utf-8")))
    small = render(telling.format, {**agent, "fetch": True}, now)
    fitting = _fitting(small, telling)
    if fitting is None:
        raise ContextError(
            f"the context takes {len(small)} bytes without its scripts, the cloud takes {telling.limit}",
            where=f"group {worker.group} on cloud {worker.cloud}",
            remedy="put large files into the image, or write them as scripts: those are fetched",
        )
    scripts = json.loads(render(ContextFormat.AGENT, agent, later)).get("scripts", [])
    return UserData(fitting, json.dumps({"scripts": scripts}).encode())


def _fitting(content: bytes, telling: Telling) -> bytes | None:
    """As it is, or compressed where only that fits and the reader takes it; None when it does not fit."""
    if telling.limit is None or len(content) <= telling.limit:
        return content
    if telling.format in COMPRESSIBLE and len(packed := compressed(content)) <= telling.limit:
        return packed
    return None


def variables_of(worker: Worker, settings: ContextSettings) -> dict[str, str]:
    """What ``{{ name }}`` may be in a layer."""
    resources = worker.shape.resources
    return {
        "worker": worker.id,
        "group": worker.group,
        "cloud": worker.cloud,
        "shape": worker.shape.name,
        "image": worker.image or "",
        "cores": str(resources.cores),
        "memory": str(resources.memory),
        "disk": str(resources.disk),
        "gpus": str(resources.gpus),
        "service": settings.service[0],
    }


def masked(content: bytes, join_token: str) -> bytes:
    """For people: without the secret half of the join token."""
    name, _, secret = join_token.partition(".")
    return content.replace(secret.encode(), b"********") if name and secret else content

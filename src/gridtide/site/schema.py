"""The site file's JSON schema, for editors and for ``gridtide schema``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gridtide.site.base import LONGEST_NAME
from gridtide.site.loader import NAMED_SECTIONS, SECTIONS
from gridtide.site.models import GroupSettings
from gridtide.site.policies import POLICIES, SchedulePolicySettings
from gridtide.site.registry import CLOUDS, QUEUES

_NAME: Final = {"pattern": r"^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": LONGEST_NAME}
_MEANING: Final = {
    "site": "The site itself.",
    "service": "The HTTP service that workers and users call.",
    "store": "Where workers, wishes, jobs and the audit log are kept.",
    "controller": "The controller's rhythm.",
    "context": "What every machine is told at boot.",
    "queues": "Where jobs wait, one table per queue.",
    "clouds": "Where machines come from, one table per cloud.",
    "groups": "Workers of one kind, one table per group.",
}


def schema() -> dict[str, Any]:
    """Draft 2020-12, with the settings of every registered driver. Plug-ins that cannot be loaded are left out."""
    queues, clouds, policies = (list(table.models().values()) for table in (QUEUES, CLOUDS, POLICIES))
    models: list[type[BaseModel]] = [*SECTIONS.values(), GroupSettings, *queues, *clouds, *policies]
    references, definitions = models_json_schema([(model, "validation") for model in models])
    found: dict[str, Any] = definitions["$defs"]

    def reference(model: type[BaseModel]) -> dict[str, Any]:
        return dict(references[(model, "validation")])

    def one_of(variants: list[type[Any]]) -> dict[str, Any]:
        return {"oneOf": [reference(model) for model in variants]}

    # The model says "some policy"; which ones there are is known to the registry alone.
    for owner, key in ((GroupSettings, "policy"), (SchedulePolicySettings, "follow")):
        policy: dict[str, Any] = found[owner.__name__]["properties"][key]
        policy.pop("$ref", None)
        policy.update(one_of([each for each in policies if each is not owner]))
    found.pop("PolicySettings", None)
    named = {"queues": one_of([*queues]), "clouds": one_of([*clouds]), "groups": reference(GroupSettings)}
    properties: dict[str, Any] = {key: reference(model) for key, model in SECTIONS.items()}
    properties |= {key: _named(named[key]) for key in NAMED_SECTIONS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gridtide site file",
        "type": "object",
        "additionalProperties": False,
        "required": ["site", *NAMED_SECTIONS],
        "properties": {key: {**value, "description": _MEANING[key]} for key, value in properties.items()},
        "$defs": found,
    }


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of ``[section.NAME]``."""
    return {"type": "object", "propertyNames": _NAME, "minProperties": 1, "additionalProperties": table}

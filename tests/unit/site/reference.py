"""The tables of docs/reference/site-file.md and images.md, made from the models.

``python -m tests.unit.site.reference`` writes them into the pages; a test fails when they differ.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gridtide.images.recipe import Recipe, RecipeFile
from gridtide.site.base import needs_restart
from gridtide.site.context import GroupContextSettings
from gridtide.site.costs import BillingSettings, BudgetSettings
from gridtide.site.drivers import (
    AliEC2QueueSettings,
    PilotQueueSettings,
    ProcessCloudSettings,
    QuotaSettings,
    ShapeSettings,
)
from gridtide.site.ec2 import Ec2CloudSettings, Ec2RateSettings, Ec2RatesSettings, Ec2ShapeSettings
from gridtide.site.htcondor import HTCondorQueueSettings
from gridtide.site.loader import SECTIONS
from gridtide.site.models import AliEC2Settings, CertificateFiles, GroupSettings
from gridtide.site.opennebula import OpennebulaCloudSettings, OpennebulaShapeSettings
from gridtide.site.openstack import OpenstackCloudSettings, OpenstackShapeSettings, OpenstackVolumeSettings
from gridtide.site.policies import POLICIES, WindowSettings
from gridtide.site.qemu import QemuCloudSettings
from gridtide.site.slurm import SlurmQueueSettings

PAGE = Path(__file__).parents[3] / "docs/reference/site-file.md"

MODELS: dict[str, type[BaseModel]] = {
    **SECTIONS,
    "service.tls": CertificateFiles,
    "service.aliec2": AliEC2Settings,
    "queues: pilot": PilotQueueSettings,
    "queues: aliec2": AliEC2QueueSettings,
    "queues: slurm": SlurmQueueSettings,
    "queues: htcondor": HTCondorQueueSettings,
    "clouds: process": ProcessCloudSettings,
    "clouds: qemu": QemuCloudSettings,
    "clouds: ec2": Ec2CloudSettings,
    "clouds: ec2 shapes": Ec2ShapeSettings,
    "clouds: ec2 rates": Ec2RatesSettings,
    "clouds: ec2 rate": Ec2RateSettings,
    "clouds: openstack": OpenstackCloudSettings,
    "clouds: openstack shapes": OpenstackShapeSettings,
    "clouds: openstack volume": OpenstackVolumeSettings,
    "clouds: opennebula": OpennebulaCloudSettings,
    "clouds: opennebula shapes": OpennebulaShapeSettings,
    "clouds: quota": QuotaSettings,
    "clouds: billing": BillingSettings,
    "clouds: budget": BudgetSettings,
    "clouds: shapes": ShapeSettings,
    "groups": GroupSettings,
    "groups.context": GroupContextSettings,
    **{f"policy: {name}": model for name, model in POLICIES.models().items()},
    "policy: schedule windows": WindowSettings,
}
"""Every model, by the name of its table in the page."""

IMAGES = Path(__file__).parents[3] / "docs/reference/images.md"
RECIPES: dict[str, type[BaseModel]] = {"recipe": Recipe, "recipe: files": RecipeFile}


def table_of(model: type[BaseModel]) -> str:
    """One row per key: key, type, default, meaning."""
    properties = model.model_json_schema()["properties"]
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        default = "required" if field.is_required() else as_written(field.default)
        meaning = field.description or ""
        note = " *Restart to change.*" if needs_restart(model, key) else ""
        rows.append(f"| `{key}` | {type_of(properties[key])} | {default} | {meaning.replace('|', '/')}{note} |")
    return "\n".join(rows)


def as_written(default: object) -> str:
    """A default as one would write it in the file."""
    if default is None:
        return "left out"
    if isinstance(default, Path):
        return f'`"{default}"`'
    if isinstance(default, dict):
        pairs = ", ".join(f"{key} = {_quoted(value)}" for key, value in default.items())
        return f"`{{ {pairs} }}`" if pairs else "`{}`"
    return f"`{json.dumps(default)}`"


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def type_of(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(one) for one in schema["anyOf"] if one != {"type": "null"}))
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if "enum" in schema:
        return " or ".join(f'`"{one}"`' for one in schema["enum"])
    if "x-unit" in schema:
        return str(schema["x-unit"])
    if "$ref" in schema:
        return "table"
    if schema["type"] == "object":
        return "table"
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'])}"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[schema["type"]]


def block(name: str) -> re.Pattern[str]:
    """Where the table of this name stands in the page."""
    return re.compile(rf"(<!-- keys of {re.escape(name)} -->\n)(.*?)(\n<!-- end -->)", re.DOTALL)


def with_tables(page: str, models: dict[str, type[BaseModel]] = MODELS) -> str:
    """The page with its tables renewed."""
    for name, model in models.items():
        table = table_of(model)
        page = block(name).sub(lambda found, table=table: found[1] + table + found[3], page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    for path, models in ((PAGE, MODELS), (IMAGES, RECIPES)):
        path.write_text(with_tables(path.read_text(encoding="utf-8"), models), encoding="utf-8")

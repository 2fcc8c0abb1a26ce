"""The schema and the reference page say what the models say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gridtide.site.base import SiteModel
from gridtide.site.hints import nearest, suggestion
from gridtide.site.loader import NAMED_SECTIONS, SECTIONS, problems
from gridtide.site.policies import POLICIES
from gridtide.site.registry import CLOUDS, QUEUES
from gridtide.site.schema import schema

from .conftest import Write
from .reference import IMAGES, MODELS, PAGE, RECIPES, block, table_of, with_tables
from .texts import CLOUD, GROUP, QUEUE, SITE

TEXT = PAGE.read_text(encoding="utf-8")


def built_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """All models that Gridtide itself defines."""
    for one in model.__subclasses__():
        if one.__module__.startswith("gridtide.site."):
            yield one
        yield from built_in(one)


ABSTRACT = {"Typed", "QueueSettings", "CloudSettings", "LocalCloudSettings", "PolicySettings"}


def test_every_key_of_every_model_is_described() -> None:
    seen = 0
    for model in set(built_in(SiteModel)):
        for key, field in model.model_fields.items():
            if not (model.__name__ in ABSTRACT and key == "type"):
                assert field.description, f"{model.__name__}.{key} has no description"
                seen += 1
    assert seen > 60


@pytest.mark.parametrize("name", MODELS)
def test_the_page_has_the_table_of_every_model(name: str) -> None:
    found = block(name).search(TEXT)
    assert found is not None, f"no table for {name}"
    assert found[2] == table_of(MODELS[name]), "run: python -m tests.unit.site.reference"


def test_the_page_has_no_other_tables() -> None:
    assert with_tables(TEXT) == TEXT


def test_the_tables_of_recipes_are_those_of_the_code() -> None:
    text = IMAGES.read_text(encoding="utf-8")
    assert with_tables(text, RECIPES) == text
    assert sorted(re.findall(r"<!-- keys of (.*?) -->", TEXT)) == sorted(MODELS)


def test_no_model_is_forgotten() -> None:
    assert {model.__name__ for model in built_in(SiteModel)} - ABSTRACT - {"ProcessQuotaSettings"} == {
        model.__name__ for model in MODELS.values()
    }


EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_page_work(number: int, write: Write, tmp_path: Path) -> None:
    for name in ("worker.cloud-init.yaml", "site.crt", "site.key", "ca.pem", "database.password"):
        (tmp_path / name).write_text("x")
    example = EXAMPLES[number]
    small = {"site": SITE, "queues": QUEUE, "clouds": CLOUD, "groups": GROUP}
    rest = [text for section, text in small.items() if f"[{section}" not in example]
    assert [str(one) for one in problems(write(example + "\n" + "".join(rest)))] == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


# --- the schema


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a schema."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from nodes(one)


def test_the_schema_is_whole() -> None:
    made = json.loads(json.dumps(schema()))
    assert set(made["properties"]) == {*SECTIONS, *NAMED_SECTIONS}
    assert made["required"] == ["site", "queues", "clouds", "groups"]
    references = {node["$ref"] for node in nodes(made) if "$ref" in node}
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(made["$defs"])
    for name, definition in made["$defs"].items():
        assert definition["additionalProperties"] is False, name
        for key, node in definition["properties"].items():
            assert node.get("description"), f"{name}.{key}"


def test_the_schema_offers_every_driver_and_policy() -> None:
    made = schema()
    for section, table in (("queues", QUEUES), ("clouds", CLOUDS)):
        offered = made["properties"][section]["additionalProperties"]["oneOf"]
        types = {made["$defs"][one["$ref"].removeprefix("#/$defs/")]["properties"]["type"]["const"] for one in offered}
        assert types == set(table.names())
    policy = made["$defs"]["GroupSettings"]["properties"]["policy"]
    assert len(policy["oneOf"]) == len(POLICIES.names()) == 7
    assert len(made["$defs"]["SchedulePolicySettings"]["properties"]["follow"]["oneOf"]) == 6
    assert policy["default"] == {"type": "tide"}
    assert "PolicySettings" not in made["$defs"]


def test_units_in_the_schema_are_those_of_the_parser() -> None:
    lease = schema()["$defs"]["GroupSettings"]["properties"]["lease"]
    assert lease["default"] == "10 min"
    for good in ("5 min", "1.5 h", "500ms"):
        assert re.search(lease["pattern"], good)
    for bad in ("5", "5 m", "-5 s", "five min"):
        assert not re.search(lease["pattern"], bad)


# --- suggestions


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("maximun", ["minimum", "maximum"], "maximum"),
        ("QUOTA", ["quota", "settle"], "quota"),
        ("zebra", ["quota", "settle"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name(name: str, known: list[str], found: str | None) -> None:
    assert nearest(name, known) == found


def test_a_suggestion_is_a_name_or_the_list() -> None:
    assert suggestion("qouta", ["quota"]) == "did you mean 'quota'?"
    assert suggestion("zebra", ["a", "b"]) == "known: a, b"
    assert suggestion("zebra", []) == "there is none yet"
    assert suggestion("zebra", [str(number) for number in range(20)]).endswith("11 and 8 more")

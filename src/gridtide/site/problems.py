"""From pydantic's errors to lines that a site's administrator can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gridtide.errors import SiteFileError
from gridtide.site.base import SiteModel, Typed
from gridtide.site.hints import nearest, suggestion
from gridtide.site.locate import Keys, Position
from gridtide.site.policies import POLICIES
from gridtide.site.registry import CLOUDS, QUEUES, TypeTable


class SiteFileProblem(SiteFileError):
    """One thing that is wrong, and where. ``position`` is None when it is the file as a whole."""

    def __init__(self, what: str, *, path: Path, position: Position | None, keys: Keys = (), right: str = "") -> None:
        self.path = path
        self.position = position
        self.keys = keys
        where = str(path) if position is None else f"{path}:{position.line}:{position.column}"
        super().__init__(f"{dotted(keys)}: {what}" if keys else what, where=where, remedy=right)


def dotted(keys: Sequence[str | int]) -> str:
    """As one would write it in TOML: ``groups.grid.clouds[1]``; names that TOML would quote are quoted."""
    text = ""
    for step in keys:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            bare = step.isascii() and step.replace("-", "").replace("_", "").isalnum()
            text += ("." if text else "") + (step if bare else repr(step))
    return text


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong at a key; its place in the text is looked up later."""

    keys: Keys
    what: str
    right: str


def troubles(
    error: ValidationError, model: type[SiteModel], prefix: Keys, table: Mapping[str, object]
) -> Iterator[Trouble]:
    """All that pydantic found in one section. ``table`` is the section as it was read."""
    details = error.errors(include_url=False)
    meant = {_meant(one, model, table) for one in details if one["type"] == "extra_forbidden"}
    for one in details:
        steps = _steps(one, table)
        if one["type"] == "missing" and steps in meant:
            continue  # it is there, but misspelt, which is said already
        if one["type"] == "extra_forbidden":
            known = [key for key in _model_at(model, steps[:-1], table).model_fields if key != steps[-1]]
            yield Trouble((*prefix, *steps), "unknown key", suggestion(str(steps[-1]), known))
        else:
            yield Trouble((*prefix, *steps), *_words(one))


def _meant(detail: ErrorDetails, model: type[SiteModel], table: Mapping[str, object]) -> Keys:
    *above, key = _steps(detail, table)
    near = nearest(str(key), list(_model_at(model, above, table).model_fields))
    return (*above, near if near is not None else str(key))


def _steps(detail: ErrorDetails, table: Mapping[str, object]) -> Keys:
    """The location without what is not in the text: ``[key]`` of a mapping, the branches of a union."""
    found: list[str | int] = []
    value: object = table
    last = len(detail["loc"]) - 1
    may_lack = detail["type"] in {"missing", "gridtide"}
    for number, step in enumerate(detail["loc"]):
        if isinstance(value, dict) and (step in value or (number == last and may_lack and step != "[key]")):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        elif value is not None:
            continue
        found.append(step)
    return tuple(found)


_TABLES: Final[Mapping[str, TypeTable[Any]]] = {"queue": QUEUES, "cloud": CLOUDS, "policy": POLICIES}


def _model_at(model: type[SiteModel], steps: Sequence[str | int], table: Mapping[str, object]) -> type[SiteModel]:
    """The model of the table that ``steps`` lead to."""
    value: Any = table
    for step in steps:
        value = value[step]
        field = model.model_fields.get(str(step))
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            continue
        model = inner
        if issubclass(model, Typed) and isinstance(value, dict) and "type" in value:
            model = _TABLES[model.noun].model(value["type"])
    return model


def _model_in(annotation: object) -> type[SiteModel] | None:
    """The model inside ``X | None``, ``Mapping[str, X]``, ``tuple[X, ...]`` ..."""
    if isinstance(annotation, type) and issubclass(annotation, SiteModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)


def _words(detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and what would be right."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "gridtide":
            return context["what"], context["right"]
        case "missing":
            return "this key is missing", f"add {detail['loc'][-1]} = ..."
        case "value_error":
            return str(context["error"]), ""
        case "literal_error":
            return "is not one of its values", f"one of: {context['expected']}"
        case "greater_than_equal":
            return f"{detail['input']} is too small", f"at least {context['ge']}"
        case "less_than_equal":
            return f"{detail['input']} is too large", f"at most {context['le']}"
        case "too_short":
            return "is empty", "name at least one"
        case "string_too_short":
            return "is empty", "write something, or leave it out"
        case "string_too_long":
            return "is too long", f"at most {context['max_length']} characters"
        case kind if kind in _KINDS:
            return f"must be {_KINDS[kind][0]}, not {_kind_of(detail['input'])}", _right_kind(kind, detail["input"])
        case _:
            return detail["msg"].lower(), ""


_KINDS: Final = {
    "string_type": ("text", 'in quotes: "..."'),
    "int_type": ("a whole number", "for example 3"),
    "float_type": ("a number", "for example 0.5"),
    "bool_type": ("true or false", "without quotes"),
    "tuple_type": ("a list", 'for example ["..."]'),
    "list_type": ("a list", 'for example ["..."]'),
    "dict_type": ("a table", "for example { key = ... }"),
    "mapping_type": ("a table", "for example { key = ... }"),
    "model_type": ("a table", "for example { key = ... }"),
    "model_attributes_type": ("a table", "for example { key = ... }"),
}


def _right_kind(kind: str, value: object) -> str:
    if kind == "int_type" and isinstance(value, str) and value.strip().isdecimal():
        return f"write {value.strip()} without quotes"
    if kind in {"tuple_type", "list_type"} and isinstance(value, str):
        return f"write [{json.dumps(value[:40])}]"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f'write "{value}"'
    return _KINDS[kind][1]


def _kind_of(value: object) -> str:
    """What TOML calls a value."""
    match value:
        case bool():
            return "true or false"
        case str():
            return "text"
        case int():
            return "a whole number"
        case float():
            return "a number with a point"
        case list():
            return "a list"
        case dict():
            return "a table"
        case date() | time():
            return "a date or time"
        case _:
            return "this"

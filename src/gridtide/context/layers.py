"""What a machine is told beside how to join: files of the site, of its cloud and of its group, in this order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath
from typing import Final

import yaml

from gridtide.errors import ContextError
from gridtide.site.hints import suggestion


class LayerKind(StrEnum):
    """What a file is, by its first line, as cloud-init has it (its documentation, "User-data formats")."""

    CLOUD_CONFIG = "cloud-config"
    SCRIPT = "script"
    BOOTHOOK = "boothook"
    AMICONFIG = "amiconfig"


_KINDS: Final = (
    ("#cloud-config", LayerKind.CLOUD_CONFIG),
    ("#cloud-boothook", LayerKind.BOOTHOOK),
    ("#!", LayerKind.SCRIPT),
    ("[amiconfig]", LayerKind.AMICONFIG),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One file, before its variables are filled in."""

    name: str
    """As messages call it: the path of the file."""
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One file as a machine gets it."""

    name: str
    kind: LayerKind
    content: str = field(repr=False)


def parts_of(layers: Iterable[Layer], variables: Mapping[str, str]) -> tuple[Part, ...]:
    """Fill in the variables and check each layer. ContextError names file and line."""
    return tuple(_part(layer, variables) for layer in layers)


def _part(layer: Layer, variables: Mapping[str, str]) -> Part:
    try:
        text = layer.content.decode()
    except UnicodeDecodeError as error:
        line = layer.content[: error.start].count(b"\n") + 1
        raise ContextError("is not UTF-8 text", where=f"{layer.name}:{line}") from None
    kind = _kind(layer.name, text)
    filled = fill(text, variables, layer.name)
    if kind is LayerKind.CLOUD_CONFIG:
        _check_yaml(layer.name, filled)
    return Part(PurePath(layer.name).name, kind, filled)


def _kind(name: str, text: str) -> LayerKind:
    first = text.partition("\n")[0].strip()
    for start, kind in _KINDS:
        if first.startswith(start):
            return kind
    raise ContextError(
        f"its first line does not say what it is: {first[:40]!r}",
        where=f"{name}:1",
        remedy="begin with #cloud-config, #!, #cloud-boothook or [amiconfig]",
    )


def _check_yaml(name: str, text: str) -> None:
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = 1 if mark is None else mark.line + 1
        raise ContextError(f"is not YAML: {error.problem or error.context}", where=f"{name}:{line}") from None
    except yaml.YAMLError as error:
        raise ContextError(f"is not YAML: {error}", where=name) from None
    if document is not None and not isinstance(document, dict):
        raise ContextError("holds no keys: cloud-init would ignore it", where=f"{name}:2", remedy="write KEY: VALUE")


# --- variables

_PLACE: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_BRACES: Final = "braces"
"""``{{ braces }}`` stands for two opening braces: the only other thing that is not a variable."""


def fill(text: str, variables: Mapping[str, str], name: str) -> str:
    """Put values in place of ``{{ variable }}``. Nothing else is replaced and nothing is run.

    ContextError, with the line, for a name that nobody defined.
    """

    def value(found: re.Match[str]) -> str:
        word = found[1].strip()
        if word == _BRACES:
            return "{{"
        if word in variables:
            return variables[word]
        line = text.count("\n", 0, found.start()) + 1
        known = sorted(variables)
        hint = suggestion(word, known) if _NAME.fullmatch(word) else f"{{{{ {_BRACES} }}}} stands for two braces"
        raise ContextError(f"nobody defines {word[:60]!r}", where=f"{name}:{line}", remedy=hint)

    return _PLACE.sub(value, text)

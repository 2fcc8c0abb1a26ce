"""What all sections of the site file share: strict models, names, numbers and paths."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from gridtide.model.demand import Attribute
from gridtide.site.units import wrong


@dataclass(frozen=True, slots=True)
class Place:
    """Where a section stands; handed to the models as pydantic's validation context."""

    directory: Path
    """Of the site file: relative paths start there."""
    state: Path
    """The state directory of the site."""
    name: str
    """Of the section, e.g. ``local`` for ``[clouds.local]``."""


class SiteModel(BaseModel):
    """A table of the site file. Unknown keys are errors; values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class Typed(SiteModel):
    """A table whose ``type`` key says which model it follows."""

    noun: ClassVar[str]
    """What a user calls one of these: ``queue``, ``cloud`` or ``policy``."""
    type: str


RESTART: Final[dict[str, Any]] = {"x-restart": True}
"""Marks a key that cannot change while the site runs (``json_schema_extra`` of its field)."""


def written(default: object, description: str, *, restart: bool = False) -> Any:
    """A key that may be left out. ``default`` is what one would write in the file; it is validated like that."""
    return Field(default=default, description=description, json_schema_extra=RESTART if restart else None)


def needs_restart(model: type[BaseModel], key: str) -> bool:
    """Whether a change of this key takes a restart."""
    field = model.model_fields.get(key)
    extra = None if field is None else field.json_schema_extra
    return isinstance(extra, dict) and extra.get("x-restart") is True


# --- names and numbers

# A worker's id is GROUP-xxxxxxxx, a host name of at most 63 characters; a cloud's tag holds the site's name as well.
LONGEST_SITE_NAME: Final = 20
LONGEST_NAME: Final = 40

_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)
_SHAPE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_ATTRIBUTE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)

# The agent measures these itself: a word against them would let jobs onto machines that cannot hold them.
_MEASURED: Final = frozenset({"cpus", "memory", "disk", "gpus", "machine"})


def check_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that is safe in host names, tags and paths. PydanticCustomError otherwise."""
    if not _NAME.fullmatch(name) or len(name) > longest:
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:longest].strip("-")
        example = f", for example {safe!r}" if safe else ""
        rule = f"a letter, then letters, digits and hyphens in lower case, at most {longest} characters"
        raise wrong(f"{name[:60]!r} cannot be a name", rule + example)
    return name


def _check_site_name(name: str) -> str:
    return check_name(name, LONGEST_SITE_NAME)


def _check_shape_name(name: str) -> str:
    if not _SHAPE_NAME.fullmatch(name):
        raise wrong(f"{name[:60]!r} cannot be a shape's name", "letters, digits, '.', '_' and '-', at most 63")
    return name


def _check_attribute_name(name: str) -> str:
    if not _ATTRIBUTE_NAME.fullmatch(name):
        raise wrong(f"{name[:60]!r} cannot be an attribute's name", "a letter, then letters, digits and '_'")
    if name.lower() in _MEASURED:
        raise wrong(f"{name!r} is measured by the machine itself", "leave it out, or choose another name")
    if name.lower().startswith("gridtide"):
        raise wrong(f"{name!r} is one of Gridtide's own attributes", "choose a name that does not begin with it")
    return name


Text = Annotated[str, Field(min_length=1, max_length=1000)]
"""Any text that is not empty."""

SiteName = Annotated[str, AfterValidator(_check_site_name)]
"""Safe in host names and tags."""

ShapeKey = Annotated[str, AfterValidator(_check_shape_name)]
"""The name of a shape that the site file itself defines."""

AttributeKey = Annotated[str, AfterValidator(_check_attribute_name)]
"""The name of a ClassAd attribute that a group may set."""


def _attribute_value(value: object) -> Attribute:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not isfinite(value)):
        raise wrong("must be text, a finite number, or true or false", 'for example "X86_64"')
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise wrong("is too large a number", "at most 63 bits")
    return value


AttributeValue = Annotated[Attribute, PlainValidator(_attribute_value, json_schema_input_type=str | int | float | bool)]
"""What an attribute may be."""

# More workers, cores or jobs than any one site has; beyond it a figure is a slip of the finger.
MOST: Final = 1_000_000

Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
"""A whole number from 0."""

PositiveCount = Annotated[int, Field(strict=True, ge=1, le=MOST)]
"""A whole number from 1."""


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("must be a number", "without quotes, for example 0.25")
    if not isfinite(value):
        raise wrong(f"{value} is not an amount", "for example 0.25")
    return value


Price = Annotated[float, BeforeValidator(_number), Field(ge=0, le=MOST)]
"""Money per hour, in the currency of the price list."""


# --- paths


def _resolve(value: object, information: ValidationInfo) -> Path:
    """A text is the file's own word, relative to it. A Path is a default, with {state} and {name} to be filled in."""
    place: Place | None = information.context
    if isinstance(value, Path):
        if place is None:
            return value
        return Path(str(value).format(state=place.state, name=place.name))
    if not isinstance(value, str):
        raise wrong("must be a path", 'write it in quotes, for example "state"')
    if not value.strip() or "\0" in value:
        raise wrong(f"{value!r} is not a path", "a directory or file, relative to the site file")
    directory = place.directory if place is not None else Path.cwd()
    try:
        return Path(os.path.normpath(directory / Path(value).expanduser()))
    except RuntimeError:
        raise wrong(f"{value!r} names a home directory that does not exist", "write the whole path") from None


def _mode(path: Path) -> int | None:
    """Of what is there; None when nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise wrong(f"{path} cannot be looked at: {error.strerror}", "check the directories above it") from None


def _directory(path: Path) -> Path:
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise wrong(f"{path} is not a directory", "name a directory; it is made when it does not exist")
    return path


def _file(path: Path) -> Path:
    mode = _mode(path)
    if mode is None:
        raise wrong(f"there is no file {path}", "relative paths start at the site file's directory")
    if not stat.S_ISREG(mode):
        raise wrong(f"{path} is not a file", "name a file")
    if not os.access(path, os.R_OK):
        raise wrong(f"this user may not read {path}", "change its owner or mode")
    return path


_PATH_SCHEMA: Final = WithJsonSchema({"type": "string", "minLength": 1})

Directory = Annotated[Path, BeforeValidator(_resolve), AfterValidator(_directory), _PATH_SCHEMA]
"""A directory that exists or can be made."""

File = Annotated[Path, BeforeValidator(_resolve), AfterValidator(_file), _PATH_SCHEMA]
"""A file that exists and can be read."""


# --- addresses

# QEMU's user network: packets from it come out of the host's own loopback (QEMU documentation, "SLIRP").
_USER_NETWORK: Final = ip_network("10.0.2.0/24")


def is_loopback(host: str) -> bool:
    """Whether traffic to this host stays in the machine. QEMU's user network counts."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address in _USER_NETWORK


def check_endpoint(url: str, example: str) -> str:
    """The address of an API that is given secrets. PydanticCustomError, which repeats no secret, otherwise."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if "@" in url:
        raise wrong("must not hold a user or a password", f'for example "{example}"')
    if not right or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise wrong(f"{url[:60]!r} is not an endpoint", f'for example "{example}"')
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise wrong("would send secrets over a network in the clear", "https://")
    return url

"""Recipes: what an image is made of. TOML, strict as the site file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from gridtide.errors import ImageError
from gridtide.site.base import File, Place, SiteModel, Text, written
from gridtide.site.hints import suggestion
from gridtide.site.locate import Locations
from gridtide.site.problems import troubles
from gridtide.site.units import PositiveSize, wrong

BUILT_IN: Final = ("thin", "batch", "slurm", "cloud")
"""Recipes that come with Gridtide."""


def _target(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or path.endswith("/"):
        raise wrong(f"{path[:60]!r} is not a place in the image", 'an absolute path of a file, e.g. "/etc/motd"')
    return path


def _mode(mode: str) -> str:
    if len(mode) > 5 or not mode or set(mode) - set("01234567"):
        raise wrong(f"{mode[:20]!r} is not a file mode", 'octal digits in quotes, e.g. "0644"')
    return mode


def _package(name: str) -> str:
    if not name or set(name.lower()) - set("abcdefghijklmnopqrstuvwxyz0123456789+-.:=~"):
        raise wrong(f"{name[:60]!r} is not the name of a package", 'for example "ca-certificates"')
    return name


Package = Annotated[str, AfterValidator(_package)]


class RecipeFile(SiteModel):
    """A file that is put into the image."""

    source: File = Field(description="The file, relative to the recipe.")
    target: Annotated[str, AfterValidator(_target)] = Field(description="Where it is put.")
    mode: Annotated[str, AfterValidator(_mode)] = written("0644", description="Its mode, in octal digits.")


class Recipe(SiteModel):
    """Everything that a built image follows from, beside the state of the package mirror."""

    description: Text = written("a worker image", description="One line for lists.")
    suite: Text = written("bookworm", description="Release of Debian.")
    mirror: Text | None = written(
        None,
        description="Address of the package mirror; a snapshot's address pins every version. Left out: the host's.",
    )
    packages: tuple[Package, ...] = written((), description="Packages to install, without what they recommend.")
    kernel: Package = written("linux-image-cloud-amd64", description="The kernel's package.")
    files: tuple[RecipeFile, ...] = written((), description="Files to put into the image.")
    script: File | None = written(
        None, description="A script that is run in the image as root, after packages and files."
    )
    guest: Literal["gridtide", "systemd"] = written(
        "gridtide",
        description='First program of its machines: "gridtide" is up in seconds, "systemd" is a usual system.',
    )
    disk: PositiveSize = written("4 GiB", description="Size of its disk; a shape with more gets more.")
    minimum_memory: PositiveSize = written("192 MiB", description="Less memory does not boot it.")


def read_recipe(given: str) -> tuple[Recipe, str]:
    """A recipe and its text, from a built-in one's name or a file. ImageError names file, line, key and remedy."""
    ours = Path(str(files("gridtide.images"))) / "recipes" / f"{given}.toml"
    place = ours if given in BUILT_IN else Path(given)
    try:
        text = place.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        hint = suggestion(given, BUILT_IN)
        raise ImageError(
            "there is no such recipe", where=given, remedy=f"name a file, or one of ours: {hint}"
        ) from None
    except OSError as error:
        raise ImageError(f"the recipe cannot be read: {error.strerror}", where=given) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"the recipe is not TOML: {error}", where=given, remedy="see https://toml.io") from None
    context = Place(place.absolute().parent, place.absolute().parent, place.stem)
    try:
        return Recipe.model_validate(table, context=context), text
    except ValidationError as error:
        first = next(iter(troubles(error, Recipe, (), table)))
        position = Locations(text).find(first.keys)
        where = f"{given}:{position.line}" if position is not None else given
        key = ".".join(str(step) for step in first.keys)
        raise ImageError(f"{key}: {first.what}", where=where, remedy=first.right) from None

"""What machines are told at boot, beside how to join: ``[context]``, and ``context`` of clouds and groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from gridtide.site.base import File, SiteModel, written
from gridtide.site.units import wrong

_VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise wrong(f"{name[:60]!r} cannot name a variable", "a letter, then letters, digits and '_', in lower case")
    return name


class ContextSettings(SiteModel):
    """Files that machines get. Those of the site come first, then those of their cloud, then those of their group."""

    files: tuple[File, ...] = written(
        (),
        description="Files that are handed to each machine, in order. A change makes older workers over-old.",
    )


class GroupContextSettings(ContextSettings):
    """What the machines of a group are told at boot, beside how to join."""

    format: Literal["agent", "cloud-init", "amiconfig", "opennebula"] | None = written(
        None, description="How it is written. Left out: as the image or the cloud has it."
    )
    variables: Mapping[Annotated[str, AfterValidator(_variable)], Annotated[str, Field(max_length=10_000)]] = written(
        {}, description="Values for `{{ name }}` in the files, beside those that every machine has."
    )

"""What differs between two readings of a site file, and what of it cannot change while the site runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gridtide.errors import SiteFileError
from gridtide.model.ids import GroupName
from gridtide.site.base import needs_restart
from gridtide.site.locate import Keys
from gridtide.site.problems import dotted
from gridtide.site.site import Site
from gridtide.site.units import show_duration, show_size, unit_of

_SECTIONS: Final = ("site", "service", "store", "controller", "queues", "clouds", "groups")


@dataclass(frozen=True, slots=True)
class Change:
    """One key that says something else now."""

    keys: Keys
    text: str
    """In words, without the key."""
    live: bool
    """Whether a running site can follow it."""

    def __str__(self) -> str:
        return f"{dotted(self.keys)}: {self.text}"


def changes(old: Site, new: Site) -> list[str]:
    """One line for each key that differs. Defaults that follow from another key are not repeated."""
    return [str(change) for change in differences(old, new)]


def refusal(old: Site, new: Site) -> SiteFileError | None:
    """Why ``new`` cannot replace ``old`` while the site runs; None when it can."""
    fixed = [dotted(change.keys) for change in differences(old, new) if not change.live]
    if not fixed:
        return None
    return SiteFileError(
        f"cannot change while the site runs: {', '.join(fixed)}",
        where=str(new.path),
        remedy="restart to change, or put the old value back",
    )


def differences(old: Site, new: Site) -> list[Change]:
    """All of them, in the order of the sections."""
    found: list[Change] = []
    for section in _SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        found.extend(
            _models((section,), before, after) if isinstance(before, BaseModel) else _tables((section,), before, after)
        )
    for group in old.context.keys() & new.context.keys():
        found.extend(_contents(old, new, group))
    return found


def _contents(old: Site, new: Site, group: GroupName) -> Iterator[Change]:
    before = {one.path: one.content for one in old.context[group]}
    for number, one in enumerate(new.context[group]):
        if one.path in before and before[one.path] != one.content:
            keys = ("groups", group, "context", "files", number)
            yield Change(keys, f"{one.path.name} has other contents", live=True)


def _models(keys: Keys, old: BaseModel, new: BaseModel) -> Iterator[Change]:
    if type(old) is not type(new):  # another type: its keys have nothing to do with the old ones
        kinds = [getattr(one, "type", type(one).__name__) for one in (old, new)]
        live = not needs_restart(type(old), "type")
        yield Change((*keys, "type"), f"{kinds[0]} -> {kinds[1]}", live)
        return
    for key, field in type(new).model_fields.items():
        if key in old.model_fields_set | new.model_fields_set:
            live = not needs_restart(type(new), key)
            yield from _values((*keys, key), getattr(old, key), getattr(new, key), field, live=live)


def _tables(keys: Keys, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for name in (*old, *(name for name in new if name not in old)):
        here = (*keys, name)
        if name not in new:
            yield Change(here, "removed", live=True)
        elif name not in old:
            yield Change(here, "added", live=True)
        else:
            yield from _values(here, old[name], new[name], None, live=True)


def _values(keys: Keys, old: object, new: object, field: FieldInfo | None, *, live: bool) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for change in _models(keys, old, new):
            yield Change(change.keys, change.text, live and change.live)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for change in _tables(keys, old, new):
            yield Change(change.keys, change.text, live and change.live)
    else:
        yield Change(keys, _words(old, new, field), live)


def _words(old: object, new: object, field: FieldInfo | None) -> str:
    if isinstance(old, SecretStr) or isinstance(new, SecretStr):
        return "changed"
    unit = "" if field is None else unit_of(field)
    return f"{_show(old, unit)} -> {_show(new, unit)}"


def _show(value: object, unit: str) -> str:
    match value:
        case None:
            return "left out"
        case bool():
            return str(value).lower()
        case float() if unit == "duration":
            return show_duration(value)
        case int() if unit == "size":
            return show_size(value)
        case tuple():
            return "[" + ", ".join(_show(one, unit) for one in value) + "]"
        case Path() | str():
            return repr(str(value))
        case BaseModel():
            return "a table"
        case _:
            return str(value)

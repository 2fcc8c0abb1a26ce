"""Reading a site file: one :class:`Site`, or every problem with its line.

Sections are read one by one, so that a fault in one hides none in another.
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

import gridtide.site.ec2
import gridtide.site.htcondor
import gridtide.site.opennebula
import gridtide.site.openstack
import gridtide.site.qemu
import gridtide.site.slurm  # noqa: F401  (they register their types)
from gridtide.model.ids import CloudName, GroupName, QueueName
from gridtide.site.base import Place, SiteModel, Typed, check_name
from gridtide.site.checks import Known, check_budgets, check_group, check_queues, check_service, check_store
from gridtide.site.context import ContextSettings
from gridtide.site.hints import nearest, suggestion
from gridtide.site.locate import Keys, Locations, Position
from gridtide.site.models import ControllerSettings, GroupSettings, ServiceSettings, SiteSettings, StoreSettings
from gridtide.site.problems import SiteFileProblem, Trouble, troubles
from gridtide.site.registry import CLOUDS, QUEUES, TypeTable
from gridtide.site.site import ContextFile, Site

__all__ = ["LARGEST_FILE", "Site", "load", "problems", "state_of"]

LARGEST_FILE: Final = 1024 * 1024
"""Bytes. A site of a thousand groups takes a third of it; anything larger is not a site file."""

# User-data of the common clouds ends at 16 KiB; what a driver hands over in other ways stays small too.
_LARGEST_CONTEXT: Final = 1024 * 1024

SECTIONS: Final[Mapping[str, type[SiteModel]]] = MappingProxyType(
    {
        "site": SiteSettings,
        "service": ServiceSettings,
        "store": StoreSettings,
        "controller": ControllerSettings,
        "context": ContextSettings,
    }
)
"""The sections that exist once."""
NAMED_SECTIONS: Final = ("queues", "clouds", "groups")
"""The sections that exist once per name."""

M = TypeVar("M", bound=SiteModel)
T = TypeVar("T", bound=Typed)


def load(path: Path) -> Site:
    """The site that the file describes. SiteFileError for the first thing that is wrong, in order of lines."""
    site, found = _read(path)
    if found:
        raise found[0]
    assert site is not None  # noqa: S101  (there is a site or a problem)
    return site


def state_of(path: Path) -> Path:
    """The state directory alone, found whatever else is wrong with the file: a site that runs can still be looked at
    and stopped while its file is broken. SiteFileError when ``[site]`` cannot be read and nothing is at the usual
    place.
    """
    usual = path.absolute().parent / "state"
    try:
        table = _parse(path, _text(path)).get("site", {})
        reader = _Reader(path.absolute(), "")
        site = reader.section(SiteSettings, ("site",), table, usual)
    except SiteFileProblem:
        site = None
    if site is not None:
        return site.state
    return usual if usual.is_dir() else load(path).state


def problems(path: Path) -> list[SiteFileProblem]:
    """Everything that is wrong, in order of lines; empty when the file can be used."""
    return _read(path)[1]


def _read(path: Path) -> tuple[Site | None, list[SiteFileProblem]]:
    try:
        text = _text(path)
        table = _parse(path, text)
    except SiteFileProblem as problem:
        return None, [problem]
    reader = _Reader(Path(path).absolute(), text)
    site = reader.read(table)
    if not reader.troubles:
        return site, []
    locations = Locations(text)
    found = [
        SiteFileProblem(one.what, path=path, position=locations.find(one.keys), keys=one.keys, right=one.right)
        for one in reader.troubles
    ]
    found.sort(key=lambda problem: problem.position or Position(1, 1))
    return None, found


def _text(path: Path) -> str:
    def refuse(what: str, right: str = "", position: Position | None = None) -> SiteFileProblem:
        return SiteFileProblem(what, path=path, position=position, right=right)

    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise refuse("is a directory, not a site file", f"name the file, for example {path / 'site.toml'}")
        if not stat.S_ISREG(mode):
            raise refuse("is not a regular file", "name a TOML file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise refuse("there is no such file", "`gridtide init` makes one") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise refuse(f"cannot be read: {reason}", "check its owner, its mode and those of its directories") from None
    if len(data) > LARGEST_FILE:
        raise refuse("is larger than 1 MiB: not a site file", "name a TOML file with [site], [queues.NAME] ...")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        position = Position(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        raise refuse("is not UTF-8 text", "save it as UTF-8", position) from None


_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_problem(path, text, str(error)) from None
    except RecursionError:
        raise SiteFileProblem(
            "brackets are nested too deeply", path=path, position=None, right="a site file needs five levels"
        ) from None
    if not table:
        right = "`gridtide init` writes a first one"
        raise SiteFileProblem("the file is empty", path=path, position=Position(1, 1), right=right)
    return table


def _syntax_problem(path: Path, text: str, message: str) -> SiteFileProblem:
    at = _AT.search(message)
    what = message[: at.start()] if at else message
    # Where a bracket is missed, or "at the end of the file", tells nobody where it was opened.
    told = at is not None and at[1] is not None and not what.startswith("Unclosed")
    position = Position(int(at[1]), int(at[2])) if at and told else Locations(text).last_statement
    right = _SYNTAX_HINTS.get(what if told or what != "Invalid value" else "Unclosed", _SEE)
    return SiteFileProblem(f"not TOML: {what[0].lower()}{what[1:]}", path=path, position=position, right=right)


_SEE: Final = "see https://toml.io for how TOML is written"
_SYNTAX_HINTS: Final = {
    "Invalid value": 'text, durations and sizes are written in quotes: "5 min"',
    "Expected newline or end of document after a statement": 'one key per line; durations need quotes: "5 min"',
    "Expected '=' after a key in a key/value pair": "write key = value",
    "Unclosed": "close every [, { and quote",
    "Unclosed array": "close it with ]",
    "Unclosed inline table": "close it with }",
    "Unterminated string": 'close it with "',
    "Cannot overwrite a value": "write each key once",
    "Expected ']' at the end of a table declaration": "write [section] or [section.NAME]",
}


@dataclass(slots=True)
class _Reader:
    """Reads one parsed file; gathers what is wrong."""

    path: Path
    text: str
    troubles: list[Trouble] = field(default_factory=list)

    def read(self, table: dict[str, Any]) -> Site | None:
        """The site, None when anything is wrong (see ``troubles``)."""
        meant = self._unknown_sections(table)
        named = {section: self._named(section, table.get(section, {}), meant) for section in NAMED_SECTIONS}
        if "site" not in table and "site" not in meant:
            self._add((), "the section [site] is missing", 'add [site] with name = "..."')
        state = self.path.parent / "state"
        site = self.section(SiteSettings, ("site",), table.get("site", {}), state) if "site" in table else None
        state = site.state if site is not None else state
        service = self.section(ServiceSettings, ("service",), table.get("service", {}), state)
        store = self.section(StoreSettings, ("store",), table.get("store", {}), state)
        controller = self.section(ControllerSettings, ("controller",), table.get("controller", {}), state)
        queues = self._typed(QUEUES, "queues", named["queues"], state)
        clouds = self._typed(CLOUDS, "clouds", named["clouds"], state)
        groups = {
            name: group
            for name, one in named["groups"].items()
            if (group := self.section(GroupSettings, ("groups", name), one, state)) is not None
        }
        names = {section: (*tables, *meant.get(section, ())) for section, tables in named.items()}
        self.troubles.extend(check_queues(queues))
        self.troubles.extend(check_budgets(clouds))
        self._check(Known(**names, cloud_settings=clouds, queue_settings=queues), service, store, groups)
        shared_settings = self.section(ContextSettings, ("context",), table.get("context", {}), state)
        shared: dict[CloudName | None, tuple[ContextFile, ...]] = {
            CloudName(name): self._context(("clouds", name, "context"), one.context) for name, one in clouds.items()
        }
        if shared_settings is not None:
            shared[None] = self._context(("context",), shared_settings)
        context = {
            GroupName(name): self._context(("groups", name, "context"), group.context) for name, group in groups.items()
        }
        if self.troubles or site is None or service is None or store is None or controller is None:
            return None
        return Site(
            path=self.path,
            digest=self._digest([*shared.values(), *context.values()]),
            site=site,
            service=service,
            store=store,
            controller=controller,
            queues=MappingProxyType({QueueName(name): queue for name, queue in queues.items()}),
            clouds=MappingProxyType({CloudName(name): cloud for name, cloud in clouds.items()}),
            groups=MappingProxyType({GroupName(name): group for name, group in groups.items()}),
            context=MappingProxyType(context),
            shared_context=MappingProxyType(shared),
        )

    def _add(self, keys: Keys, what: str, right: str) -> None:
        self.troubles.append(Trouble(keys, what, right))

    def _unknown_sections(self, table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Misspelt sections by the name that was meant, with the names in them: what refers to those is no fault."""
        known = [*SECTIONS, *NAMED_SECTIONS]
        meant: dict[str, tuple[str, ...]] = {}
        for key, value in table.items():
            if key not in known:
                self._add((key,), "unknown section", suggestion(key, known))
                meant[nearest(key, known) or key] = tuple(value) if isinstance(value, dict) else ()
        return meant

    def _named(self, section: str, tables: object, meant: Container[str]) -> dict[str, Any]:
        """The tables of ``[section.NAME]``."""
        noun = section.removesuffix("s")
        if not isinstance(tables, dict):
            self._add((section,), f"must hold one table per {noun}", f"write [{section}.NAME]")
            return {}
        if not tables and section not in meant:
            self._add((), f"there is no [{section}.NAME]", f"a site needs a {noun} at least")
        for name in tables:
            try:
                check_name(name)
            except PydanticCustomError as error:
                self._wrong((section, name), error)
        return tables

    def _wrong(self, keys: Keys, error: PydanticCustomError) -> None:
        context = error.context or {}
        self._add(keys, str(context["what"]), str(context["right"]))

    def section(self, model: type[M], keys: Keys, table: object, state: Path) -> M | None:
        """A table by its model; None when anything is wrong with it."""
        if not isinstance(table, dict):
            self._add(keys, "must be a table", f"write [{'.'.join(str(key) for key in keys)}] and its keys below")
            return None
        try:
            return model.model_validate(table, context=Place(self.path.parent, state, str(keys[-1])))
        except ValidationError as error:
            self.troubles.extend(troubles(error, model, keys, table))
            return None

    def _typed(self, types: TypeTable[T], section: str, tables: dict[str, Any], state: Path) -> dict[str, T]:
        read: dict[str, T] = {}
        for name, table in tables.items():
            keys = (section, name)
            if not isinstance(table, dict):
                self._add(keys, "must be a table", f"write [{section}.{name}] and its keys below")
                continue
            if "type" not in table:
                self._add((*keys, "type"), "this key is missing", types.missing())
                continue
            try:
                model = types.model(table["type"])
            except PydanticCustomError as error:
                self._wrong((*keys, "type"), error)
                continue
            settings = self.section(model, keys, table, state)
            if settings is not None:
                read[name] = settings
        return read

    def _check(
        self,
        known: Known,
        service: ServiceSettings | None,
        store: StoreSettings | None,
        groups: Mapping[str, GroupSettings],
    ) -> None:
        def all_of() -> Iterator[Trouble]:
            if service is not None:
                yield from check_service(service, known)
            if store is not None:
                yield from check_store(store)
            for name, group in groups.items():
                yield from check_group(name, group, known)

        self.troubles.extend(all_of())

    def _context(self, prefix: Keys, settings: ContextSettings) -> tuple[ContextFile, ...]:
        read: list[ContextFile] = []
        for number, path in enumerate(settings.files):
            keys = (*prefix, "files", number)
            try:
                content = path.read_bytes()
            except OSError as error:
                self._add(keys, f"{path} cannot be read: {error.strerror}", "check its owner and mode")
                continue
            if len(content) > _LARGEST_CONTEXT:
                self._add(keys, f"{path} is larger than 1 MiB", "put large files into the image")
            read.append(ContextFile(path, content))
        return tuple(read)

    def _digest(self, layers: Iterable[tuple[ContextFile, ...]]) -> str:
        digest = sha256(sha256(self.text.encode()).digest())
        for files in layers:
            for one in files:
                digest.update(sha256(one.content).digest())
        return digest.hexdigest()

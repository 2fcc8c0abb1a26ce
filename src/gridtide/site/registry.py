"""Which settings belong to which ``type``: of queues, of clouds, of policies.

A driver adds its own with :func:`register_queue` or :func:`register_cloud`; a package from elsewhere with an entry
point in the group ``gridtide.queue_settings``, ``gridtide.cloud_settings`` or ``gridtide.policy_settings``, named like
the type, that leads to the settings class. An entry point is loaded only when a site file uses its type: a broken
plug-in harms nobody else.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from gridtide.errors import GridtideError
from gridtide.plug_ins import call_plug_in
from gridtide.site.base import Typed
from gridtide.site.hints import listing, suggestion
from gridtide.site.units import wrong

if TYPE_CHECKING:
    from gridtide.site.drivers import CloudSettings, QueueSettings

T = TypeVar("T", bound=Typed)


class TypeTable(Generic[T]):
    """The settings models of one kind, by the name that ``type`` has in the site file."""

    def __init__(self, noun: str, plug_ins: str | None = None) -> None:
        self.noun = noun
        """What a user calls one of them, e.g. ``cloud``."""
        self._models: dict[str, type[T]] = {}
        self._packages: dict[str, str] = {}
        self._plug_ins = plug_ins

    def register(self, name: str, model: type[T]) -> None:
        """ValueError when another model has the name already."""
        if self._models.setdefault(name, model) is not model:
            raise ValueError(f"{self.noun} type {name!r} is registered twice")

    def forget(self, name: str) -> None:
        """Take a registration back. Harmless when there is none."""
        self._models.pop(name, None)
        self._packages.pop(name, None)

    def names(self) -> list[str]:
        """Every type that a site file may name, installed plug-ins included."""
        return sorted({*self._models, *self._found()})

    def models(self) -> dict[str, type[T]]:
        """All registered models. Plug-ins that cannot be loaded are left out."""
        for name in self._found():
            try:
                self.model(name)
            except ValueError:
                continue
        return dict(sorted(self._models.items()))

    def model(self, name: object) -> type[T]:
        """The model for a value of ``type``. PydanticCustomError (a ValueError) that says what would be right."""
        if not isinstance(name, str):
            raise wrong("must be text", f'for example "{self.names()[0]}"')
        if name in self._models:
            return self._models[name]
        found = self._found().get(name, [])
        if not found:
            raise wrong(f"{name[:60]!r} is not a {self.noun} type", suggestion(name, self.names()))
        if len(found) > 1:
            packages = " and ".join(sorted(map(_package, found)))
            raise wrong(f"{self.noun} type {name!r} is brought by {packages}", "uninstall all but one of them")
        self._models[name] = self._load(found[0])
        return self._models[name]

    def package(self, name: str) -> str:
        """Name and version of the package from elsewhere that a loaded type comes from; empty for Gridtide's own."""
        return self._packages.get(name, "")

    def hidden(self) -> dict[str, str]:
        """Plug-ins that no site file can reach, for Gridtide has their type itself: type and package."""
        return {
            name: ", ".join(map(_package, found))
            for name, found in self._found().items()
            if name in self._models and name not in self._packages
        }

    def _found(self) -> dict[str, list[EntryPoint]]:
        by_name: dict[str, list[EntryPoint]] = {}
        for found in () if self._plug_ins is None else entry_points(group=self._plug_ins):
            by_name.setdefault(found.name, []).append(found)
        return by_name

    def _load(self, found: EntryPoint) -> type[T]:
        what = f"{self.noun} type {found.name!r} of {_package(found)}"
        try:
            model = call_plug_in(found.load)
        except GridtideError as error:
            raise wrong(f"{what} cannot be loaded: {error.what}", _REINSTALL) from None
        if not (isinstance(model, type) and issubclass(model, Typed) and getattr(model, "noun", None) == self.noun):
            raise wrong(f"{what} has no settings: {found.value} is no {self.noun.capitalize()}Settings", _REINSTALL)
        self._packages[found.name] = _package(found)
        return cast(type[T], model)

    def missing(self) -> str:
        """What to write when ``type`` is missing."""
        return f"add type = ..., one of: {listing(self.names())}"


def _package(found: EntryPoint) -> str:
    """Name and version of what brought an entry point."""
    return "an unknown package" if found.dist is None else f"{found.dist.name} {found.dist.version}"


_REINSTALL: Final = "install a version of it that fits this Gridtide, or tell its authors"

QUEUES: Final[TypeTable[QueueSettings]] = TypeTable("queue", "gridtide.queue_settings")
CLOUDS: Final[TypeTable[CloudSettings]] = TypeTable("cloud", "gridtide.cloud_settings")


def register_queue(name: str, model: type[QueueSettings]) -> None:
    """Let ``[queues.NAME]`` have ``type = name``. ValueError when the name is taken."""
    QUEUES.register(name, model)


def register_cloud(name: str, model: type[CloudSettings]) -> None:
    """Let ``[clouds.NAME]`` have ``type = name``. ValueError when the name is taken."""
    CLOUDS.register(name, model)

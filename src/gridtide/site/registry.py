"""Which settings belong to which ``type``: of queues, of clouds, of policies.

A driver adds its own with :func:`register_queue` or :func:`register_cloud`; a package from elsewhere with an entry
point in the group ``gridtide.queue_settings`` or ``gridtide.cloud_settings``, named like the type, that leads to the
settings class. An entry point is loaded only when a site file uses its type: a broken plug-in harms nobody else.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

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
        self._plug_ins = plug_ins

    def register(self, name: str, model: type[T]) -> None:
        """ValueError when another model has the name already."""
        if self._models.setdefault(name, model) is not model:
            raise ValueError(f"{self.noun} type {name!r} is registered twice")

    def forget(self, name: str) -> None:
        """Take a registration back. Harmless when there is none."""
        self._models.pop(name, None)

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
        found = self._found().get(name)
        if found is None:
            raise wrong(f"{name[:60]!r} is not a {self.noun} type", suggestion(name, self.names()))
        self._models[name] = self._load(found)
        return self._models[name]

    def _found(self) -> dict[str, EntryPoint]:
        if self._plug_ins is None:
            return {}
        return {found.name: found for found in entry_points(group=self._plug_ins)}

    def _load(self, found: EntryPoint) -> type[T]:
        try:
            model = found.load()
        except (ImportError, AttributeError, SyntaxError) as error:
            raise wrong(
                f"the plug-in of {self.noun} type {found.name!r} cannot be loaded: {error}", _REINSTALL
            ) from None
        if not (isinstance(model, type) and issubclass(model, Typed) and getattr(model, "noun", None) == self.noun):
            raise wrong(f"the plug-in of {self.noun} type {found.name!r} has no settings model", _REINSTALL)
        return cast(type[T], model)

    def missing(self) -> str:
        """What to write when ``type`` is missing."""
        return f"add type = ..., one of: {listing(self.names())}"


_REINSTALL: Final = "install a version of it that fits this Gridtide"

QUEUES: Final[TypeTable[QueueSettings]] = TypeTable("queue", "gridtide.queue_settings")
CLOUDS: Final[TypeTable[CloudSettings]] = TypeTable("cloud", "gridtide.cloud_settings")


def register_queue(name: str, model: type[QueueSettings]) -> None:
    """Let ``[queues.NAME]`` have ``type = name``. ValueError when the name is taken."""
    QUEUES.register(name, model)


def register_cloud(name: str, model: type[CloudSettings]) -> None:
    """Let ``[clouds.NAME]`` have ``type = name``. ValueError when the name is taken."""
    CLOUDS.register(name, model)

"""What the user and its group may still use, as OpenNebula counts: machines, shares of cores, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from gridtide.clouds.opennebula_machine import Template
from gridtide.errors import QuotaExceeded
from gridtide.model.machines import Quota

_DEFAULT: Final = -1.0
"""A limit that is the default one of all users, or of all groups; -2, and any other below zero, is none."""
_SCOPES: Final = {"VMS": "machines", "CPU": "cores", "MEMORY": "memory"}
_UNITS: Final = {"VMS": "machines", "CPU": "cores", "MEMORY": "MiB of memory"}


@dataclass(frozen=True, slots=True)
class Limit:
    """One of OpenNebula's."""

    whose: str
    """``user`` or ``group``."""
    metric: str
    """``VMS``, ``CPU`` (shares of physical cores) or ``MEMORY`` (MiB)."""
    limit: float
    used: float
    running: bool = False
    """It counts machines only while they are on a host, or on their way to one."""


def limits(whose: str, document: Any, default: Any) -> tuple[Limit, ...]:
    """Those that there are. ``document``: pyone's user or group; ``default``: its default quotas."""
    own, given = _entry(document.VM_QUOTA), _entry(default.VM_QUOTA if default is not None else None)
    found = []
    for running in (False, True):
        for metric in _SCOPES:
            name = f"RUNNING_{metric}" if running else metric
            limit = _figure(own, name, _DEFAULT)
            if limit == _DEFAULT:
                limit = _figure(given, name, _DEFAULT)
            if limit >= 0:
                found.append(Limit(whose, metric, limit, _figure(own, f"{name}_USED", 0.0), running))
    return tuple(found)


def _entry(quota: Any) -> Any:
    """That for all clusters together; one for some of them only is left to OpenNebula."""
    rows = getattr(quota, "VM", None) or ()
    for row in rows if isinstance(rows, list) else (rows,):
        if not getattr(row, "CLUSTER_IDS", None):
            return row
    return None


def _figure(entry: Any, name: str, otherwise: float) -> float:
    value = getattr(entry, name, None)
    if value is None or value == "":
        return otherwise
    figure = float(value)
    if not isfinite(figure):
        raise ValueError("a quota is not finite")
    return figure


def as_quota(limits: Iterable[Limit]) -> Quota:
    """The tightest of each kind, rounded down to whole cores."""
    tightest: dict[str, int] = {}
    for each in limits:
        tightest[each.metric] = min(tightest.get(each.metric, int(each.limit)), int(each.limit))
    return Quota(tightest.get("CPU"), tightest.get("MEMORY"), tightest.get("VMS"))


class Room:
    """What the limits leave. OpenNebula refuses what is beyond them itself: this spares it the calls."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._limits = tuple(limits)
        self._taken = dict.fromkeys(_SCOPES, 0.0)

    def take(self, kind: Template) -> QuotaExceeded | None:
        """Count one machine more; or say which quota does not hold it."""
        needs: Mapping[str, float] = {"VMS": 1.0, "CPU": kind.share, "MEMORY": float(kind.shape.resources.memory)}
        for each in self._limits:
            used, need = each.used + self._taken[each.metric], needs[each.metric]
            if used + need > each.limit:
                what = (
                    f"{used:g} of the {each.whose}'s {each.limit:g} {_UNITS[each.metric]} are used, "
                    f"{kind.shape.name} needs {need:g}"
                )
                remedy = "ask for a higher quota, or set quota of the cloud"
                return QuotaExceeded(what, scope=_SCOPES[each.metric], remedy=remedy)
        self._taken = {metric: taken + needs[metric] for metric, taken in self._taken.items()}
        return None

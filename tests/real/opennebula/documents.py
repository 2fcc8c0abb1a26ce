"""What OpenNebula's XML documents look like, by the schemas that it publishes (share/doc/xsd)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

Value = str | Mapping[str, str]
Attributes = list[tuple[str, Value]]
"""Of a template, in order: a name may be there more than once."""


@dataclass
class Machine:
    """A VM."""

    id: int
    uid: int
    gid: int
    name: str
    template: Attributes
    """What OpenNebula itself understands."""
    user_template: Attributes
    state: int
    life_cycle: int = 0
    since: float = field(default_factory=time.monotonic)
    """When it came into this state."""
    ran: bool = False
    """Whether it ever was on a host."""

    def first(self, name: str) -> str:
        """Of its attributes of one part; empty where there is none."""
        return next((value for key, value in self.template if key == name and isinstance(value, str)), "")

    def said(self, name: str) -> str:
        """Of its user template."""
        return next((value for key, value in self.user_template if key == name and isinstance(value, str)), "")

    def vectors(self, name: str) -> list[Mapping[str, str]]:
        """Its attributes of several parts."""
        return [value for key, value in self.template if key == name and not isinstance(value, str)]


@dataclass
class Thing:
    """A template, an image or a virtual network."""

    id: int
    uid: int
    name: str
    attributes: Attributes = field(default_factory=list)
    state: int = 1
    size: int = 0
    persistent: int = 0


def element(name: str, *inside: str) -> str:
    """Markup around markup."""
    return f"<{name}>{''.join(inside)}</{name}>"


def leaf(name: str, value: object) -> str:
    """Markup around text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def leaves(values: Mapping[str, object]) -> str:
    """One after the other."""
    return "".join(leaf(name, value) for name, value in values.items())


def attributes(name: str, rows: Attributes) -> str:
    """A template."""
    parts = [leaf(key, value) if isinstance(value, str) else element(key, leaves(value)) for key, value in rows]
    return element(name, *parts)


def machine(each: Machine, *, extended: bool) -> str:
    """A VM as ``vm.info`` and extended listings show it, or with what changes only."""
    head = {
        "ID": each.id,
        "UID": each.uid,
        "GID": each.gid,
        "UNAME": f"user{each.uid}",
        "GNAME": f"group{each.gid}",
        "NAME": each.name,
        "LAST_POLL": 0,
        "STATE": each.state,
        "LCM_STATE": each.life_cycle,
        "RESCHED": 0,
        "STIME": 1,
        "ETIME": 0,
        "DEPLOY_ID": "",
    }
    if extended:
        body = attributes("TEMPLATE", [*each.template, ("VMID", str(each.id))]) + attributes(
            "USER_TEMPLATE", each.user_template
        )
    else:
        short: Attributes = [(name, each.first(name)) for name in ("CPU", "MEMORY", "VCPU")]
        short += [("DISK", disk) for disk in each.vectors("DISK")]
        shown = [(name, each.said(name)) for name in ("LABELS", "ERROR", "SCHED_MESSAGE") if each.said(name)]
        body = attributes("TEMPLATE", short) + "<MONITORING/>" + attributes("USER_TEMPLATE", [*shown])
    return element("VM", leaves(head), body, "<HISTORY_RECORDS/>")


def thing(name: str, each: Thing) -> str:
    """An element of a pool."""
    head = {"ID": each.id, "UID": each.uid, "GID": each.uid, "UNAME": "u", "GNAME": "g", "NAME": each.name}
    more = {"TYPE": 0, "PERSISTENT": each.persistent, "SIZE": each.size, "STATE": each.state} if name == "IMAGE" else {}
    return element(name, leaves(head), leaves(more), attributes("TEMPLATE", each.attributes))


def quotas(vm: Mapping[str, str] | None) -> str:
    """Of a user or a group: OpenNebula has an entry for machines once the first one was made."""
    inside = "" if vm is None else element("VM", leaves(vm))
    return f"<DATASTORE_QUOTA/><NETWORK_QUOTA/>{element('VM_QUOTA', inside)}<IMAGE_QUOTA/>"


def user(
    uid: int, name: str, quota: Mapping[str, str] | None, default: Mapping[str, str] | None, tokens: Mapping[str, int]
) -> str:
    """Who calls."""
    head = {"ID": uid, "GID": 100, "GNAME": "group100", "NAME": name, "PASSWORD": "?", "AUTH_DRIVER": "core"}
    shown = [
        element("LOGIN_TOKEN", leaves({"TOKEN": token, "EXPIRATION_TIME": ends, "EGID": -1}))
        for token, ends in tokens.items()
    ]
    middle = ["<GROUPS><ID>100</ID></GROUPS><ENABLED>1</ENABLED>", *shown, "<TEMPLATE/>", quotas(quota)]
    return element("USER", leaves(head), *middle, element("DEFAULT_USER_QUOTAS", quotas(default)))


def group(gid: int, quota: Mapping[str, str] | None, default: Mapping[str, str] | None) -> str:
    """Of who calls."""
    head = leaves({"ID": gid, "NAME": f"group{gid}"})
    middle = "<TEMPLATE/><USERS><ID>2</ID></USERS><ADMINS/>"
    return element("GROUP", head, middle, quotas(quota), element("DEFAULT_GROUP_QUOTAS", quotas(default)))


def pool(name: str, rows: Iterable[str]) -> str:
    """Of any kind."""
    return element(name, *rows)

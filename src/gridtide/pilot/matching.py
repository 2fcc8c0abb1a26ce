"""Whether a machine's ClassAd satisfies a job's requirements.

``TARGET.X``, ``other.X`` (AliEn's spelling) and a bare ``X`` that the job does not have all mean the machine's
attribute; ``MY.X`` is the job's (RequestCpus, RequestMemory, RequestDisk, RequestGpus).

The ClassAd library has two sets of rules for names without a scope, and importing another module into the process
(htcondor2) switches from one to the other. So nothing here rests on them: bare names are looked up in an ad that holds
the machine's attributes and over them the job's, and which ``MY.X`` exist is checked when a description is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

import classad2

from gridtide.errors import InvalidRequest
from gridtide.model.demand import Attribute, Offer
from gridtide.model.resources import Resources

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_MOST_ATTRIBUTES: Final = 200
_LONGEST_ATTRIBUTE: Final = 1000
# Verdicts kept. Above it all are forgotten at once: simple, and each costs only tens of microseconds to find again.
_MOST_VERDICTS: Final = 200_000


class Verdict(Enum):
    """Of a machine's ad on a job's requirements."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It depends on an attribute that the ad lacks: no match for a machine that exists, possible for an offer."""


def job_attributes(need: Resources) -> dict[str, Attribute]:
    """What requirements see as ``MY``."""
    return {
        "RequestCpus": need.cores,
        "RequestMemory": need.memory,
        "RequestDisk": need.disk,
        "RequestGpus": need.gpus,
    }


def checked_host(host: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """A machine's description of itself, if it is sound. InvalidRequest."""
    if len(host) > _MOST_ATTRIBUTES:
        raise InvalidRequest(
            f"the machine describes itself with {len(host)} attributes, {_MOST_ATTRIBUTES} are the most"
        )
    for name, value in host.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name[:40]!r} is not the name of a machine's attribute")
        if isinstance(value, str) and len(value) > _LONGEST_ATTRIBUTE:
            raise InvalidRequest(f"the machine's attribute {name} is longer than {_LONGEST_ATTRIBUTE} characters")
        if isinstance(value, float) and value - value != 0:
            raise InvalidRequest(f"the machine's attribute {name} is not a finite number")
    return dict(host)


def host_resources(host: Mapping[str, Attribute]) -> Resources:
    """Cpus, Memory, Disk and Gpus of a machine's ad; what is missing counts as none. InvalidRequest."""
    amounts: list[int] = []
    by_lower = {name.lower(): value for name, value in host.items()}
    for name in ("Cpus", "Memory", "Disk", "Gpus"):
        value = by_lower.get(name.lower(), 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
            raise InvalidRequest(f"the machine's attribute {name} must be a number that is not negative")
        amounts.append(int(value))
    return Resources(*amounts)


def offer_host(offer: Offer) -> dict[str, Attribute]:
    """The ad that a machine of this offer will have, as far as it is known before it exists."""
    resources = offer.shape.resources
    return {
        **offer.attributes,
        "Cpus": resources.cores,
        "Memory": resources.memory,
        "Disk": resources.disk,
        "Gpus": resources.gpus,
    }


class Host:
    """A machine's ad, parsed once, with a digest that names it in caches."""

    def __init__(self, attributes: Mapping[str, Attribute]) -> None:
        self.digest = digest_of(attributes)
        self.names = frozenset(name.lower() for name in attributes)
        self.attributes = dict(attributes)
        self.ad = classad2.ClassAd(self.attributes)


def digest_of(attributes: Mapping[str, Attribute]) -> str:
    """The same for the same attributes in any order."""
    text = json.dumps(attributes, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Verdicts:
    """Evaluates requirements, each pair of (requirements and need, machine's ad) once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Resources, str], Verdict] = {}
        self._hosts: dict[str, Host] = {}

    def host(self, attributes: Mapping[str, Attribute], digest: str | None = None) -> Host:
        """The parsed ad; ``digest`` saves computing it when it is known."""
        digest = digest_of(attributes) if digest is None else digest
        host = self._hosts.get(digest)
        if host is None:
            if len(self._hosts) >= _MOST_VERDICTS // 10:
                self._hosts.clear()
            host = self._hosts[digest] = Host(attributes)
        return host

    def judge(self, requirements: str, need: Resources, host: Host) -> Verdict:
        """Whether the requirements hold on this machine."""
        if requirements == "true":
            return Verdict.YES
        key = (requirements, need, host.digest)
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= _MOST_VERDICTS:
                self._known.clear()
            verdict = self._known[key] = evaluate(requirements, need, host)
        return verdict


def evaluate(requirements: str, need: Resources, host: Host) -> Verdict:
    """Without a cache. Numbers count as truth values, as everywhere in ClassAds; texts do not."""
    tree = classad2.ExprTree(requirements)
    job = {name.lower(): value for name, value in job_attributes(need).items()}
    machine = {name.lower(): value for name, value in host.attributes.items()}
    try:
        value = tree.eval(scope=classad2.ClassAd({**machine, **job}), target=host.ad)
    except classad2.ClassAdException:  # too deep for the library's evaluator: the same for every machine
        return Verdict.NO
    if isinstance(value, bool | int | float) and not isinstance(value, classad2.Value):
        return Verdict.YES if value else Verdict.NO
    if isinstance(value, classad2.Value) and _unknown_names(need, tree, host):
        return Verdict.UNKNOWN
    return Verdict.NO


def _unknown_names(need: Resources, tree: classad2.ExprTree, host: Host) -> bool:
    return any(name not in host.names for name in machine_names(need, tree))


def machine_names(need: Resources, tree: classad2.ExprTree) -> frozenset[str]:
    """The machine's attributes that an expression refers to, in lower case."""
    # The library lists what the job's ad does not resolve, an empty name when there is none, and sometimes MY.X too.
    names = (name.lower() for name in classad2.ClassAd(job_attributes(need)).externalRefs(tree))
    return frozenset(
        name.removeprefix("target.").removeprefix("other.") for name in names if name and not name.startswith("my.")
    )

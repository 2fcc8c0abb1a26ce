"""The ad that a machine of an offer will have, before it exists: so that an empty pool can grow from zero.

It is made of what every execution point says, what the site file says, and what the last machine of the same group and
shape really said. Names of attributes are in lower case, since ClassAds make no difference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from gridtide.model.demand import Attribute, Offer, OfferKey
from gridtide.queues.htcondor.joining import DOMAIN, DRAIN, LEASE_LOST

Expressions = dict[str, str]

_USUAL: Final[Mapping[str, str]] = {
    "arch": '"X86_64"',
    "opsys": '"LINUX"',
    "hasfiletransfer": "true",
    "hasjobdeferral": "true",
    "hasreconnect": "true",
    "hastdp": "true",
    "hasmpi": "true",
    "hasioproxy": "true",
    "hasperfileencryption": "true",
    "hastransferinputremaps": "true",
    "hasselfcheckpointtransfers": "true",
    "hasjiclocalconfig": "true",
    "hasjiclocalstdin": "true",
    "hasstartdaemonad": "true",
}
"""What HTCondor 10 to 25 say of any Linux machine."""

# Of one machine or one moment: not what the next machine will say.
_PASSING: Final = frozenset({
    "accountinggroup", "activity", "addressv1", "authenticatedidentity", "clientmachine", "clockday", "clockmin",
    "condorloadavg", "consoleidle", "cpubusy", "currentrank", "daemonstarttime", "filesystemdomain", "globaljobid",
    "gridtidedrain", "gridtideleaselost", "gridtideworker", "hardwareaddress", "jobid", "jobstarts", "keyboardidle",
    "lastheardfrom", "loadavg", "machine", "myaddress", "mycurrenttime", "name", "numdynamicslots", "remoteowner",
    "remoteuser", "requirements", "slotid", "slottypeid", "startdipaddr", "state", "subnetmask",
    "totalcondorloadavg", "totalloadavg", "utsnamenodename", "withinresourcelimits",
})  # fmt: skip
_RESOURCES: Final = {
    "cpus": "totalslotcpus",
    "memory": "totalslotmemory",
    "disk": "totalslotdisk",
    "gpus": "totalslotgpus",
}


class Planned:
    """``attributes`` and ``start`` are the site file's, for all workers of the queue."""

    def __init__(self, attributes: Mapping[str, Attribute], start: str, url_transfers: bool) -> None:
        self._attributes = {name.lower(): expression(value) for name, value in attributes.items()}
        self._start = start
        self._transfers = {"hasfiletransferpluginmethods": '"data,file,ftp,http,https"'} if url_transfers else {}
        self._learned: dict[OfferKey, tuple[float, Expressions]] = {}

    def learn(self, key: OfferKey, started: float, machine: Mapping[str, str]) -> None:
        """What the first free machine of this group and shape says. The one that started last is right."""
        if started >= self.learned(key):
            told = {name.lower(): text for name, text in machine.items()}
            passing = {name for name in told if name in _PASSING or name.startswith(("child", "recent", "monitorself"))}
            self._learned[key] = (started, {name: text for name, text in told.items() if name not in passing})

    def learned(self, key: OfferKey) -> float:
        """When the machine started that was learned from; minus infinity before there is one."""
        return self._learned[key][0] if key in self._learned else float("-inf")

    def ad(self, offer: Offer) -> Expressions:
        """ClassAd expressions by name."""
        size = offer.shape.resources
        told = self._learned[offer.key][1] if offer.key in self._learned else {}
        amounts = {"cpus": size.cores, "memory": size.memory, "disk": size.disk * 1024, "gpus": size.gpus}
        for name, total in _RESOURCES.items():
            # A machine of the kind had less than its shape promises, as disks and memories do.
            if name != "gpus" and total in told and told[total].replace(".", "", 1).isdigit():
                amounts[name] = min(amounts[name], int(float(told[total])))
        return {
            **_USUAL,
            **self._transfers,
            "start": self._start,
            **told,
            **{name.lower(): expression(value) for name, value in offer.attributes.items()},
            **self._attributes,
            **{name: str(amount) for name, amount in amounts.items()},
            **{total: str(amounts[name]) for name, total in _RESOURCES.items()},
            "gridtidegroup": expression(str(offer.group)),
            "gridtideshape": expression(str(offer.shape.name)),
            DRAIN.lower(): "0",
            LEASE_LOST.lower(): "false",
            "jobstarts": "0",
            "numdynamicslots": "0",
            "uiddomain": told.get("uiddomain", expression(DOMAIN)),
            "filesystemdomain": expression(f"{offer.group}.{DOMAIN}"),
            "machine": expression(f"{offer.group}.{DOMAIN}"),
            "state": '"Unclaimed"',
            "activity": '"Idle"',
        }


def expression(value: Attribute) -> str:
    """A plain value as a ClassAd expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def digest(expressions: Mapping[str, str]) -> str:
    """The same for the same ad."""
    return hashlib.sha256(json.dumps(sorted(expressions.items())).encode()).hexdigest()[:24]

"""What ``gridtide check`` says of a pool, with the lines to add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import QueueError
from gridtide.queues.htcondor.asking import Asker, Json
from gridtide.queues.htcondor.joining import DOMAIN

# A node that gives running jobs less than this may end one when somebody drains it with HTCondor's own command.
_DAY: Final = 86_400


async def look_over(asker: Asker, where: str, deadline: float, schedds: Sequence[str]) -> Sequence[Finding]:
    """Never raises."""
    try:
        return [
            *_rights(await asker.call("allowed", deadline, names=["ADVERTISE_STARTD", "ADVERTISE_MASTER"]), where),
            *_preemption(
                await asker.call("settings", deadline, daemon="Negotiator", names=["PREEMPTION_REQUIREMENTS"]), where
            ),
            *_retirement(await asker.call("slots", deadline, projection=["Name", "MaxJobRetirementTime"]), where),
            Finding(where, Level.OK, f"schedds: {', '.join(schedds)}"),
        ]
    except QueueError as error:
        return [Finding(where, Level.ERROR, error.what, error.remedy or "do collector and schedds run?")]


def _rights(said: Sequence[Json], where: str) -> list[Finding]:
    told = said[0] if said and isinstance(said[0], dict) else {}
    refused = [name for name, may in told.items() if may is not True]
    return [
        Finding(
            where,
            Level.ERROR,
            f"the collector would refuse our workers: {name}",
            f"on its host: ALLOW_{name} = $(ALLOW_{name}) $(ALLOW_DAEMON) *@{DOMAIN}",
        )
        for name in refused
    ]


def _preemption(said: Sequence[Json], where: str) -> list[Finding]:
    findings = []
    for each in said:
        told = each.get("settings") if isinstance(each, dict) else None
        if not isinstance(told, dict):
            continue
        value = str(told.get("PREEMPTION_REQUIREMENTS") or "False")
        if value.strip("() ").lower() not in ("false", "0"):
            findings.append(
                Finding(
                    where,
                    Level.WARNING,
                    f"the negotiator may preempt running jobs: PREEMPTION_REQUIREMENTS = {value[:80]}",
                    "on its host: PREEMPTION_REQUIREMENTS = False",
                )
            )
    return findings


def _retirement(said: Sequence[Json], where: str) -> list[Finding]:
    short = 0
    for portion in said:
        for slot in portion if isinstance(portion, list) else ():
            time = slot.get("MaxJobRetirementTime") if isinstance(slot, dict) else None
            short += isinstance(time, int | float) and time < _DAY
    if not short:
        return []
    return [
        Finding(
            where,
            Level.WARNING,
            f"{short} slots end running jobs within a day when they are drained with condor_drain",
            "there: MAXJOBRETIREMENTTIME = 315360000 (our own drains never end a job)",
        )
    ]

"""What ``gridtide check`` says of a cluster's configuration, with the lines to add."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import QueueError
from gridtide.queues.slurm.commands import Commands

PORTS_SINCE: Final = (23, 11)
"""Since then slurmctld takes the port that a dynamic node names (its source, create_dynamic_reg_node)."""
DYNAMIC_SINCE: Final = (22, 5)
"""Dynamic nodes of type DYNAMIC_NORM, ``slurmd -Z``."""


async def look_over(commands: Commands, own_ports: bool, power_saving: bool = False) -> Sequence[Finding]:
    """Never raises."""
    subject = commands.where
    try:
        version = await commands.version()
        settings = read_config(await commands.run("scontrol", "show", "config"))
        partitions = read_partitions(await commands.run("scontrol", "--all", "--oneliner", "show", "partition"))
    except QueueError as error:
        return [Finding(subject, Level.ERROR, error.what, error.remedy or "does slurmctld run, and munged here?")]
    problems = [
        *_version(version, own_ports),
        *([] if power_saving else _dynamic(settings)),
        *_needed(settings),
        *(_powered(settings) if power_saving else _unpowered(settings)),
        *_advised(settings, version),
        *([] if power_saving else _partitions(partitions)),
    ]
    findings = [Finding(subject, level, text, remedy) for level, text, remedy in problems]
    release = f"{version[0]}.{version[1]:02}"
    return findings or [
        Finding(
            subject,
            Level.OK,
            f"Slurm {release} is configured for {'power saving' if power_saving else 'dynamic nodes'}",
        )
    ]


Problem = tuple[Level, str, str]


def _version(version: tuple[int, int], own_ports: bool) -> list[Problem]:
    if version < DYNAMIC_SINCE:
        return [(Level.ERROR, f"Slurm {version[0]}.{version[1]:02} has no dynamic nodes", "use 22.05 or later")]
    if own_ports and version < PORTS_SINCE:
        text = "own_ports needs Slurm 23.11 or later: before, all nodes listen on one port"
        return [(Level.ERROR, text, "give machines addresses of their own, and leave own_ports out")]
    return []


def _dynamic(settings: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []
    if "cons_tres" not in settings.get("selecttype", ""):
        problems.append((Level.ERROR, "dynamic nodes need cons_tres", "slurm.conf: SelectType=select/cons_tres"))
    if not settings.get("maxnodecount", "").isdigit():
        problems.append((Level.ERROR, "there is no room for dynamic nodes", "slurm.conf: MaxNodeCount=1000"))
    return problems


def _powered(settings: Mapping[str, str]) -> list[Problem]:
    if _never_suspends(settings) or not settings.get("resumeprogram", "").startswith("/"):
        text = "power_saving is set, but Slurm's power saving is off: no node would ever be asked for"
        return [(Level.ERROR, text, "slurm.conf: ResumeProgram=, SuspendProgram= and SuspendTime=600")]
    return []


def _unpowered(settings: Mapping[str, str]) -> list[Problem]:
    if _never_suspends(settings):
        return []
    text = "Slurm's power saving would suspend workers beside us"
    return [(Level.WARNING, text, "slurm.conf: SuspendExcParts= with the partitions of the workers")]


def _never_suspends(settings: Mapping[str, str]) -> bool:
    return settings.get("suspendtime", "INFINITE").upper().startswith(("INFINITE", "NONE", "-1"))


def _needed(settings: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []
    if "enable_configless" not in settings.get("slurmctldparameters", ""):
        text = "workers cannot fetch slurm.conf from slurmctld"
        problems.append((Level.ERROR, text, "slurm.conf: SlurmctldParameters=enable_configless"))
    if settings.get("authtype", "") != "auth/munge":
        text = f"AuthType is {settings.get('authtype') or 'not told'}: workers can only be given munge's key"
        problems.append((Level.ERROR, text, "slurm.conf: AuthType=auth/munge"))
    return problems


def _advised(settings: Mapping[str, str], version: tuple[int, int]) -> list[Problem]:
    problems: list[Problem] = []
    if settings.get("returntoservice") == "0":
        text = "a node that was out of contact stays down until an operator resumes it"
        problems.append((Level.WARNING, text, "slurm.conf: ReturnToService=2"))
    width = settings.get("treewidth", "")
    if version < (23, 11) and width.isdigit() and int(width) < 500:
        # Messages are handed on from node to node, and nodes do not know the addresses of dynamic ones.
        text = f"TreeWidth is {width}: nodes hand messages on to nodes that they cannot find"
        problems.append((Level.WARNING, text, "slurm.conf: TreeWidth=65533"))
    return problems


def _partitions(partitions: Sequence[Mapping[str, str]]) -> list[Problem]:
    """Since 23.02 they tell their node sets; before, only an operator can know."""
    told = [each for each in partitions if "nodesets" in each or "partitionname" in each]
    if not told:
        text = "there is no partition"
        return [(Level.ERROR, text, "slurm.conf: PartitionName=grid Nodes=ALL Default=YES State=UP")]
    with_sets = [each for each in told if each.get("nodesets", "(null)") != "(null)"]
    if any("nodesets" in each for each in told) and not with_sets:
        text = "no partition takes dynamic nodes in"
        remedy = "slurm.conf: PartitionName=grid Nodes=ALL, or NodeSet=workers Feature=gridtide and Nodes=workers"
        return [(Level.ERROR, text, remedy)]
    return []


def read_config(said: str) -> dict[str, str]:
    """``Key = value`` of ``scontrol show config``: it has no JSON form in any version; these lines are its format for
    programs. Keys in lower case; a second value for a key (of another section) is left out."""
    found: dict[str, str] = {}
    for line in said.splitlines():
        key, equals, value = line.partition(" = ")
        if equals:
            found.setdefault(key.strip().lower(), value.strip())
    return found


def read_partitions(said: str) -> list[dict[str, str]]:
    """One line for each, ``Key=value`` between spaces. 22.05 has no JSON for partitions."""
    found = []
    for line in said.splitlines():
        pairs = re.findall(r"(\w+)=(\S*)", line)
        if pairs:
            found.append({key.lower(): value for key, value in pairs})
    return found

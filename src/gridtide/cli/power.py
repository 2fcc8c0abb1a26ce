"""``slurm-resume`` and ``slurm-suspend``: what Slurm's ResumeProgram and SuspendProgram call."""

from __future__ import annotations

from typing import Annotated

import typer

from gridtide.cli.client import segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import number
from gridtide.cli.problems import WrongUsage
from gridtide.queues.slurm.hostlist import expand

Nodes = Annotated[
    str, typer.Argument(metavar="HOSTLIST", help="Nodes of slurm.conf, as Slurm writes them: `n[1-3,7]`.")
]
Group = Annotated[str, typer.Option("--group", metavar="GROUP", help="The group whose workers stand for them.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "slurm-resume", panel="Operate")(resume)
    command(app, "slurm-suspend", panel="Operate")(suspend)


def resume(session: Session, nodes: Nodes, group: Group) -> None:
    """Launch a worker for each of these nodes, for Slurm's ResumeProgram. Nodes that have one keep it."""
    _ask(session, "resume", nodes, group, "launched, or there already")


def suspend(session: Session, nodes: Nodes, group: Group) -> None:
    """Drain the workers of these nodes, for Slurm's SuspendProgram. What runs there runs to its end."""
    _ask(session, "suspend", nodes, group, "ordered to drain")


def _ask(session: Session, what: str, hostlist: str, group: str, done: str) -> None:
    try:
        nodes = list(dict.fromkeys(expand(hostlist)))
    except ValueError as error:
        raise WrongUsage(str(error), remedy="Slurm's form, for example 'n[1-3,7],gpu2'") from None
    with session.client() as client:
        answer = client.post(f"/v1/groups/{segment(group)}/{what}", {"nodes": nodes})
    session.output.document(answer)
    workers = answer.get("workers") if isinstance(answer, dict) else None
    session.output.show(f"{number(len(workers) if isinstance(workers, dict) else 0, 'worker')} {done}")

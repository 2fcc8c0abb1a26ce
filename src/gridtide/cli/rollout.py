"""``rollout``: how workers of an older image or context are replaced."""

from __future__ import annotations

from typing import Annotated

import typer

from gridtide.cli import views
from gridtide.cli.client import Client, segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import printable
from gridtide.cli.output import table
from gridtide.store.ports import Json

Group = Annotated[str | None, typer.Argument(metavar="[GROUP]", help="A group; else all.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    rollout = typer.Typer(no_args_is_help=True, help="Replace workers of an older image or context.")
    for name, function in (("status", status), ("pause", pause), ("resume", resume)):
        command(rollout, name)(function)
    app.add_typer(rollout, name="rollout", rich_help_panel="Operate")


def status(session: Session, group: Group = None) -> None:
    """Show how far the replacing of older workers is, and what it waits for."""
    with session.client() as client:
        _show(session, [client.get(f"/v1/groups/{segment(name)}/rollout") for name in _groups(client, group)])


def pause(session: Session, group: Group = None) -> None:
    """Leave older workers in place until `resume`; new ones are of the new generation all the same."""
    _set(session, group, paused=True)


def resume(session: Session, group: Group = None) -> None:
    """Go on replacing older workers."""
    _set(session, group, paused=False)


def _set(session: Session, group: str | None, *, paused: bool) -> None:
    with session.client() as client:
        groups = _groups(client, group)
        _show(session, [client.post(f"/v1/groups/{segment(name)}/rollout", {"paused": paused}) for name in groups])


def _groups(client: Client, group: str | None) -> list[str]:
    if group is not None:
        return [group]
    return [row.name for row in views.groups(client.get("/v1/groups"))]


def _show(session: Session, documents: list[Json]) -> None:
    session.output.document({"groups": documents})
    rows = []
    for one in documents:
        if isinstance(one, dict):
            why = one.get("why")
            text = why.get("text", "") if isinstance(why, dict) else ""
            state = "paused" if one.get("paused") else "done" if one.get("done") else "going on"
            rows.append((str(one.get("group")), state, _told(one.get("present")), _told(one.get("older")), str(text)))
    session.output.show(table(("group", "rollout", "present", "older", "why"), rows))


def _told(states: Json) -> str:
    if not isinstance(states, dict) or not states:
        return "none"
    return printable(", ".join(f"{number} {state}" for state, number in states.items()))

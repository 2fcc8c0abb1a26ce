"""``token``: who may speak to the service."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final

import typer

from gridtide.cli import tables, views
from gridtide.cli.client import segment
from gridtide.cli.command import Session, command
from gridtide.cli.problems import ServiceFault, WrongUsage
from gridtide.store.ports import Json, Role

_UNITS: Final = {"min": 60.0, "h": 3600.0, "d": 86400.0}

USER_ROLES: Final = tuple(role.value for role in Role if role is not Role.WORKER)
"""Roles that a person can have. AliEC2's scripts use ``worker``."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    token = typer.Typer(no_args_is_help=True, help="Make, list and revoke tokens of users.")
    command(token, "create")(create)
    command(token, "list")(list_tokens)
    command(token, "revoke")(revoke)
    app.add_typer(token, name="token", rich_help_panel="Operate")


def create(
    session: Session,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose token it is.")],
    role: Annotated[Role, typer.Option(help="What it allows: see docs/reference/roles.md.")] = Role.SUBMITTER,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="TIME", help="For example 30d, 12h; else it never expires.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write it to this new file (mode 0600) instead.")
    ] = None,
) -> None:
    """Make a token and show it: this once, it is kept nowhere."""
    seconds = None if expires_in is None else _seconds(expires_in)
    sink = None if to is None else _new_file(to)
    body: dict[str, Json] = {"user": user, "role": role.value, "expires_in": seconds}
    try:
        with session.client() as client:
            answer = client.post("/v1/tokens", body)
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise ServiceFault("the service's answer holds no token")
    except BaseException:
        if to is not None and sink is not None:
            os.close(sink)
            to.unlink()
        raise
    if sink is not None:
        with os.fdopen(sink, "w", encoding="utf-8") as file:
            file.write(answer.pop("token") + "\n")
        session.output.document(answer | {"file": str(to)})
        session.output.show(f"The token is in {to}")
        return
    session.output.document(answer)
    session.output.show(str(answer["token"]))
    session.output.note("Keep it in a file that only you can read; GRIDTIDE_TOKEN_FILE names that file.")


def list_tokens(session: Session) -> None:
    """List tokens: whose, what they allow, until when. Never their secrets."""
    with session.client() as client:
        answer = client.get("/v1/tokens")
    session.output.document(answer)
    session.output.show(tables.tokens(views.tokens(answer), session.now()))


def revoke(
    session: Session, token: Annotated[str, typer.Argument(metavar="ID", help="The token's id, from `token list`.")]
) -> None:
    """Make a token worthless at once."""
    if token.startswith("gt_"):
        raise WrongUsage("give the token's id (from `token list`), not the token itself", remedy="now revoke it by id")
    with session.client() as client:
        client.delete(f"/v1/tokens/{segment(token)}")
    session.output.document({"revoked": token})
    session.output.show(f"Token {token} is worth nothing any more")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})\s*(min|h|d)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        raise WrongUsage(f"--expires-in takes a time such as 30d, 12h or 90min, not {text!r}")
    return int(match[1]) * _UNITS[match[2]]


def _new_file(path: Path) -> int:
    """Made before the token, so that no token is made that cannot be kept."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise WrongUsage(f"cannot be made: {error.strerror}", where=str(path)) from None

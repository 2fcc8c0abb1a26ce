"""Operators' commands: ``undrain scale reload console``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from gridtide.cli import tables, views
from gridtide.cli.client import segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import number, printable
from gridtide.cli.problems import WrongUsage
from gridtide.errors import NotFound
from gridtide.store.ports import Json

_POLL: Final = 0.5
"""Seconds between two looks at workers that drain."""

_PATIENCE: Final = 60.0
"""Seconds for which waiting bears a service that does not answer: it may be restarting."""

Workers = Annotated[list[str], typer.Argument(metavar="WORKER...", help="Names of workers.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (
        ("undrain", undrain),
        ("scale", scale),
        ("reload", reload),
        ("console", console),
    ):
        command(app, name, panel="Operate")(function)


def undrain(session: Session, workers: Workers) -> None:
    """Take an order to drain back: these workers are given jobs again."""
    with session.client() as client:
        answer = client.post("/v1/workers/undrain", {"workers": workers})
    session.output.document(answer if answer is not None else {"workers": workers})
    session.output.show(f"The order to drain {number(len(workers), 'worker')} is taken back")


def console(
    session: Session,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The worker, also one that is gone.")],
    most: Annotated[int, typer.Option(min=1, max=4_194_304, metavar="BYTES", help="So much of its end.")] = 65_536,
) -> None:
    """Show what a worker's machine printed: kernel, scripts, agent. For machines that keep it."""
    with session.client() as client:
        content = client.read(f"/v1/workers/{segment(worker)}/console", {"most": most})
    text = content.decode("utf-8", "replace")
    session.output.document({"worker": worker, "console": text})
    # Line by line: what a machine prints must not move the cursor of the terminal that shows it.
    session.output.show("\n".join(printable(line.rstrip("\r")) for line in text.splitlines()))


def scale(
    session: Session,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A group of the site file.")],
    minimum: Annotated[
        str | None, typer.Option(metavar="N|file", help="Never fewer workers; `file`: as the site file says.")
    ] = None,
    maximum: Annotated[
        str | None, typer.Option(metavar="N|file", help="Never more workers; `file`: as the site file says.")
    ] = None,
    desired: Annotated[
        str | None, typer.Option(metavar="N|auto", help="So many, whatever waits; `auto`: as many as the work needs.")
    ] = None,
    hold: Annotated[
        bool | None, typer.Option("--hold/--release", help="Start and drain nothing; or do so again.")
    ] = None,
) -> None:
    """Change a group's limits while it runs; without options show them. Kept until taken back."""
    body: dict[str, Json] = {}
    if minimum is not None:
        body["minimum"] = _count(minimum, "--minimum", "file")
    if maximum is not None:
        body["maximum"] = _count(maximum, "--maximum", "file")
    if desired is not None:
        body["desired"] = _count(desired, "--desired", "auto")
    if hold is not None:
        body["hold"] = hold
    with session.client() as client:
        if body:
            client.post(f"/v1/groups/{segment(group)}/scale", body)
        rows = [row for row in views.groups(client.get("/v1/groups")) if row.name == group]
    if not rows:
        raise NotFound(f"there is no group {group!r}", remedy="`gridtide status` lists them")
    session.output.document(rows[0].model_dump(mode="json"))
    session.output.show(tables.groups(rows))


def reload(session: Session) -> None:
    """Let the site read its file again at once. A file that is wrong changes nothing."""
    with session.client() as client:
        answer = client.post("/v1/site/reload")
    session.output.document(answer)
    changed = answer.get("changed") if isinstance(answer, dict) else None
    session.output.show(printable(str(changed or "Nothing has changed")))


def _count(text: str, option: str, word: str) -> int | None:
    """A number, or the word that means "as it was": None."""
    if text == word:
        return None
    if text.isdecimal() and text.isascii():
        return int(text)
    raise WrongUsage(f"{option} takes a number from 0 or {word!r}, not {text!r}")

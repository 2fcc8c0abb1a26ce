"""Questions to the user, and progress that can be watched or read later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from gridtide.cli.command import Session
from gridtide.cli.human import printable
from gridtide.cli.problems import WrongUsage


def somebody_answers() -> bool:
    """Whether a person is at the keyboard."""
    return sys.stdin.isatty()


def ask(question: str) -> None:
    """Go on only after a yes. WrongUsage where nobody can answer; ``typer.Abort`` after a no."""
    if not somebody_answers():
        raise WrongUsage("this asks first, and nobody is there to answer", remedy="say --yes")
    typer.confirm(printable(question), abort=True, err=True)


@contextmanager
def progress(session: Session, title: str) -> Iterator[Callable[[str], None]]:
    """A function that tells how far things are: one changing line on a terminal, plain lines elsewhere."""
    output = session.output
    if output.as_json or not sys.stderr.isatty():
        yield lambda text: output.note(f"{title}: {text}")
        return
    with output.error_console.status(title) as status:
        yield lambda text: status.update(f"{title}: {printable(text)}")

"""The command ``gridtide``."""

from __future__ import annotations

import contextlib
import io
import sys

import typer

from gridtide.cli import (
    access,
    contexts,
    draining,
    images,
    operating,
    power,
    results,
    rollout,
    running,
    simulating,
    sites,
    watching,
    work,
)
from gridtide.cli.command import OneLineErrors

app = typer.Typer(
    name="gridtide",
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn any cloud into an elastic grid site: workers rise with the queue and fall with it.",
)

for _room in (
    sites,
    simulating,
    images,
    contexts,
    running,
    watching,
    work,
    results,
    draining,
    operating,
    rollout,
    power,
    access,
):
    _room.register(app)


def main() -> None:
    """Run the command line and exit with one of ``gridtide.cli.exit_codes``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a locale without Unicode a name that cannot be written is shown with escapes, and nothing fails.
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")
    app(prog_name="gridtide")


if __name__ == "__main__":
    main()

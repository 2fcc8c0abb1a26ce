"""What all commands share: the options that every one has, and the one barrier between errors and the user."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer import core, models

from gridtide.cli.client import Client
from gridtide.cli.exit_codes import ExitCode, exit_code
from gridtide.cli.locate import Where
from gridtide.cli.output import Output, say_error
from gridtide.errors import GridtideError


@dataclass(frozen=True, slots=True)
class Session:
    """One call of one command: where it writes, whom it asks, and its clock."""

    output: Output
    where: Where
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to the service, closed afterwards."""
        with Client(self.where.address()) as client:
            yield client


Function = Callable[..., None]
"""A command: the session first, then its own options and arguments as Typer reads them."""

_COMMON: dict[str, tuple[object, object]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="Write JSON on standard output and nothing else there.")],
        False,
    ),
    "debug": (Annotated[bool, typer.Option("--debug", help="Show where an error arose.")], False),
}

_CONNECTION: dict[str, tuple[object, object]] = {
    "site": (
        Annotated[
            Path | None,
            typer.Option("--site", metavar="FILE", help="The site file (GRIDTIDE_SITE; else ./site.toml)."),
        ],
        None,
    ),
    "url": (
        Annotated[str | None, typer.Option("--url", metavar="URL", help="The service's address (GRIDTIDE_URL).")],
        None,
    ),
    "token_file": (
        Annotated[
            Path | None,
            typer.Option("--token-file", metavar="FILE", help="A file with your token (or GRIDTIDE_TOKEN)."),
        ],
        None,
    ),
    "ca_file": (
        Annotated[
            Path | None,
            typer.Option("--ca", metavar="FILE", help="The only authority to trust for --url (GRIDTIDE_CA)."),
        ],
        None,
    ),
}


def command(
    app: typer.Typer, name: str, *, connects: bool = True, panel: str = "Commands"
) -> Callable[[Function], None]:
    """Make a function a command of ``app``: it gets a Session, and its errors become one line and an exit code.

    With ``connects`` it also has the options that say where the service is.
    """
    common = (_CONNECTION if connects else {}) | _COMMON

    def register(function: Function) -> None:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for key, (annotation, default) in common.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added

        def run(**given: object) -> None:
            shared = {key: given.pop(key) for key in common}
            output = Output(as_json=bool(shared.pop("as_json")), debug=bool(shared.pop("debug")))
            session = Session(output, Where(**shared))  # type: ignore[arg-type]
            with barrier(output):
                function(session, **given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=inspect.getdoc(function), rich_help_panel=panel)(run)

    return register


@contextmanager
def barrier(output: Output) -> Iterator[None]:
    """Turn whatever ends a command into one line and an exit code. Nothing gets past it but an exit."""
    try:
        yield
    except GridtideError as error:
        code = exit_code(error)
        output.error(error, code)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        say_error("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader (`head`) has seen enough. Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.OK) from None
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except Exception as error:  # noqa: BLE001  the last barrier: a user never meets a traceback unasked
        output.error(error, ExitCode.INTERNAL)
        raise typer.Exit(ExitCode.INTERNAL) from None


class OneLineErrors(core.TyperGroup):
    """Wrong usage is told in one line, as every other error is."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> object:
        """Run and exit; see typer's own ``main`` for the arguments."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            say_error("not done")
            code = ExitCode.INTERRUPTED
        except typer.TyperException as error:
            if line := usage_line(error):
                say_error(line)
            code = ExitCode.USAGE
        sys.exit(code if isinstance(code, int) else ExitCode.OK)


def usage_line(error: typer.TyperException) -> str:
    """What was wrong with the words on the command line, and where help is; "" when the help itself was shown."""
    message = getattr(error, "format_message", error.__str__)()
    if not message:
        return ""
    context: models.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "gridtide"
    return f"{' '.join(str(message).split())} (`{path} --help` shows what is possible)"

"""Where everything that a command says goes.

People get tables on stdout and notes on stderr. With ``--json`` stdout holds one JSON document, or one JSON line per
item when following, and nothing else.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from gridtide.cli.exit_codes import ExitCode
from gridtide.cli.human import printable
from gridtide.errors import GridtideError
from gridtide.store.ports import Json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WIDE = 500
"""Columns when the output is no terminal: a table in a pipe must not be cut to the width of nobody's window."""


class Output:
    """Writes for people or for programs, never for both at once."""

    def __init__(self, *, as_json: bool = False, debug: bool = False) -> None:
        self.as_json = as_json
        self.debug = debug
        self._written = False

    @property
    def console(self) -> Console:
        """Where people read results."""
        return _console(sys.stdout)

    @property
    def error_console(self) -> Console:
        """Where people read notes and see progress."""
        return _console(sys.stderr)

    @property
    def live(self) -> bool:
        """Whether somebody watches: only then may anything move."""
        return not self.as_json and sys.stdout.isatty()

    def document(self, value: Json) -> None:
        """The one document of this command; nothing without ``--json``."""
        if self.as_json:
            self._write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))

    def line(self, value: Json) -> None:
        """One of many documents, a line each; nothing without ``--json``."""
        if self.as_json:
            self._write(json.dumps(value, ensure_ascii=False, default=_plain))

    def show(self, *things: RenderableType) -> None:
        """A result for people; nothing with ``--json``."""
        if not self.as_json:
            self.console.print(*things, soft_wrap=not sys.stdout.isatty())

    def note(self, text: str) -> None:
        """A remark for people beside the result; nothing with ``--json``."""
        if not self.as_json:
            self.error_console.print(printable(text), soft_wrap=True)

    def error(self, error: BaseException, code: ExitCode) -> None:
        """One line on stderr. With ``--json`` also a document on stdout, unless the result is there already."""
        line = error_line(error)
        if self.as_json and not self._written:
            self._write(json.dumps({"error": _error_document(error, line, code)}, ensure_ascii=False))
        say_error(line)
        if self.debug:
            traceback.print_exception(error, file=sys.stderr)

    def _write(self, text: str) -> None:
        self._written = True
        # Half a surrogate pair, as file names may hold, has no UTF-8 form; it is written as an escape.
        safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
        sys.stdout.write(safe + "\n")
        sys.stdout.flush()


def say_error(line: str) -> None:
    """The one line on stderr that every command that failed writes."""
    sys.stderr.write(f"gridtide: {line}\n")


def error_line(error: BaseException) -> str:
    """What happened in one line that no terminal can stumble over."""
    if isinstance(error, GridtideError):
        return printable(str(error))
    text = printable(" ".join(str(error).split()))
    return f"unexpected {type(error).__name__}: {text} (this is a defect; --debug shows where)"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, right: Sequence[str] = ()
) -> RenderableType:
    """Rows under plain headings. Cells that are strings are made printable; columns in ``right`` hold figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name != "why")
    for row in rows:
        made.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    return made


def _console(stream: object) -> Console:
    from rich.console import Console

    terminal = stream is not None and getattr(stream, "isatty", bool)()
    return Console(
        stderr=stream is sys.stderr,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=terminal,
        width=None if terminal else _WIDE,
    )


def _error_document(error: BaseException, line: str, code: ExitCode) -> Mapping[str, Json]:
    fields: dict[str, Json] = {"kind": type(error).__name__, "exit_code": int(code)}
    if isinstance(error, GridtideError):
        fields |= {"what": error.what, "where": error.where, "remedy": error.remedy}
    else:
        fields |= {"what": line, "where": "", "remedy": ""}
    return fields


def _plain(value: object) -> Json:
    """Mappings that are not dicts and sequences that are not lists, for the JSON encoder."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")

"""Where in a TOML text a key is written. ``tomllib`` reads values but does not say where they came from.

The scanner walks over the text once, remembers where each key and array element begins, and reads no value. It is used
for error messages only: on a text that ``tomllib`` refuses it stops early and keeps what it has seen, it never raises.
TOML 1.0 (https://toml.io/en/v1.0.0) is the grammar.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

Step = str | int
Keys = tuple[Step, ...]
"""The way to a value: table names and keys as text, elements of arrays (and of arrays of tables) as numbers."""

_BLANK: Final = " \t"
_BARE_KEY: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
# Deeper nesting than this is left unlocated (its parent is found instead): Python's own stack is the limit.
_DEEPEST: Final = 100


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Counted from 1."""

    line: int
    column: int


class _Stop(Exception):
    """The text does not go on as TOML should."""


class Locations:
    """Where the keys of one text are written."""

    def __init__(self, text: str) -> None:
        text = text.replace("\r\n", "\n")
        self._line_starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n")]
        scanner = _Scanner(text)
        scanner.run()
        self._offsets = scanner.offsets
        self._last_statement = scanner.statement

    def __iter__(self) -> Iterator[Keys]:
        return iter(self._offsets)

    def find(self, keys: Sequence[Step]) -> Position:
        """Where the key is written; for one that is not, where the nearest table or key above it is."""
        for length in range(len(keys), 0, -1):
            offset = self._offsets.get(tuple(keys[:length]))
            if offset is not None:
                return self._position(offset)
        return Position(1, 1)

    @property
    def last_statement(self) -> Position:
        """Where the last statement that was begun starts: an unclosed string or bracket was opened in it."""
        return self._position(self._last_statement)

    def _position(self, offset: int) -> Position:
        line = bisect_right(self._line_starts, offset)
        return Position(line, offset - self._line_starts[line - 1] + 1)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.statement = 0
        self.offsets: dict[Keys, int] = {}
        self._implicit: set[Keys] = set()
        self._lengths: dict[Keys, int] = {}
        self._depth = 0

    def run(self) -> None:
        """Walk to the end of the text, or to where it stops being TOML."""
        table: Keys = ()
        try:
            while self._skip_to_content():
                self.statement = self.at
                if self._next() == "[":
                    table = self._header()
                else:
                    self._pair(table)
                self._skip(_BLANK)
                if self._next() not in {"\n", "#", ""}:
                    return
        except _Stop:
            return

    # --- statements

    def _header(self) -> Keys:
        start = self.at
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        names = [name for name, _ in self._dotted_key()]
        self._expect("]]" if many else "]")
        table: Keys = ()
        for name in names[:-1]:
            table = self._latest((*table, name))
            self._note(table, start, implicit=True)
        table = (*table, names[-1])
        if many:
            self._note(table, start)
            number = self._lengths.get(table, 0)
            self._lengths[table] = number + 1
            table = (*table, number)
        self._note(table, start)
        return table

    def _latest(self, table: Keys) -> Keys:
        """A name of an array of tables means its latest element."""
        length = self._lengths.get(table)
        return table if length is None else (*table, length - 1)

    def _pair(self, table: Keys) -> None:
        keys = table
        parts = self._dotted_key()
        for number, (name, offset) in enumerate(parts, start=1):
            keys = (*keys, name)
            self._note(keys, offset, implicit=number < len(parts))
        self._expect("=")
        self._skip(_BLANK)
        self._value(keys)

    def _note(self, keys: Keys, offset: int, *, implicit: bool = False) -> None:
        """Keep the place where a table is written itself rather than the one where it is only passed through."""
        if keys not in self.offsets or (keys in self._implicit and not implicit):
            self.offsets[keys] = offset
            (self._implicit.add if implicit else self._implicit.discard)(keys)

    def _dotted_key(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            self._skip(_BLANK)
            offset = self.at
            parts.append((self._simple_key(), offset))
            self._skip(_BLANK)
            if self._next() != ".":
                return parts
            self.at += 1

    def _simple_key(self) -> str:
        start = self.at
        if self._next() in {'"', "'"}:
            self._string()
            try:
                return str(tomllib.loads(f"key = {self.text[start : self.at]}")["key"])
            except tomllib.TOMLDecodeError:
                raise _Stop from None
        while self._next() in _BARE_KEY:
            self.at += 1
        if self.at == start:
            raise _Stop
        return self.text[start : self.at]

    # --- values

    def _value(self, keys: Keys) -> None:
        if self._depth >= _DEEPEST:
            raise _Stop
        self._depth += 1
        match self._next():
            case '"' | "'":
                self._string()
            case "[":
                self._array(keys)
            case "{":
                self._inline_table(keys)
            case _:
                self._bare_value()
        self._depth -= 1

    def _bare_value(self) -> None:
        """A number, boolean, date or time (a date and its time may have a blank between them)."""
        start = self.at
        while self._next() and self._next() not in ",]}#\n":
            self.at += 1
        if self.at == start:
            raise _Stop

    def _string(self) -> None:
        quote = self._next()
        mark = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(mark)
        while not self.text.startswith(mark, self.at):
            if not self._next() or (self._next() == "\n" and len(mark) == 1):
                raise _Stop
            self.at += 2 if quote == '"' and self._next() == "\\" else 1
        self.at += len(mark)
        if len(mark) == 3:  # one or two quotes may stand directly before the closing three
            for _ in range(2):
                if self._next() == quote:
                    self.at += 1

    def _array(self, keys: Keys) -> None:
        self.at += 1
        number = 0
        while self._skip_to_content() and self._next() != "]":
            element = (*keys, number)
            self._note(element, self.at)
            self._value(element)
            number += 1
            self._skip_to_content()
            if self._next() == ",":
                self.at += 1
            elif self._next() != "]":
                raise _Stop
        self._expect("]")

    def _inline_table(self, keys: Keys) -> None:
        self.at += 1
        self._skip(_BLANK)
        while self._next() != "}":
            self._pair(keys)
            self._skip(_BLANK)
            if self._next() == ",":
                self.at += 1
                self._skip(_BLANK)
            elif self._next() != "}":
                raise _Stop
        self.at += 1

    # --- characters

    def _next(self) -> str:
        """The character here, "" at the end."""
        return self.text[self.at : self.at + 1]

    def _skip(self, characters: str) -> None:
        while self._next() and self._next() in characters:
            self.at += 1

    def _skip_to_content(self) -> bool:
        """Pass blanks, newlines and comments; whether anything is left."""
        while True:
            self._skip(" \t\n")
            if self._next() != "#":
                return self.at < len(self.text)
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end

    def _expect(self, mark: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(mark, self.at):
            raise _Stop
        self.at += len(mark)

"""The syntax of a job description: statements ``Name = expression;`` with their lines, and checked plain values.

The ClassAd library parses every expression, but tells neither where an error is nor which attribute it belongs to,
takes the last of two equal names without a word, and reads ``0x10`` and numbers above 64 bits as 0. So the text is cut
into statements here first, each is parsed by itself, and what the library would misread is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import classad2

from gridtide.errors import JobDescriptionError

MAXIMUM_TEXT: Final = 256 * 1024
"""Characters of a description. It is kept whole for each submission and read for each job: data belongs into files."""
MAXIMUM_EXPRESSION: Final = 4096
"""Characters of an expression that is evaluated. A longer one could cost the matcher its time."""
MAXIMUM_DEPTH: Final = 32
"""Open brackets at a time. The ClassAd library refuses deep nesting too, but does not say why."""

Plain = str | int | float | bool
Value = Plain | Sequence["Value"] | dict[str, "Value"]

_TOKEN: Final = re.compile(
    r"""(?P<string>"(?:\\[^\n]|[^"\\\n])*")
      | (?P<unclosed>")
      | (?P<comment>\#[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<openended>/\*)
      | (?P<open>[\[{(])
      | (?P<close>[\]})])
      | (?P<quoted>')""",
    re.VERBOSE | re.DOTALL,
)
_STATEMENT: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?!=|\?=|!=)")
_NEXT_STATEMENT: Final = re.compile(r"\n\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(?![=?!])")
_CALL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*\(")
_MISREAD: Final = re.compile(r"\b(?:0[xX][0-9a-fA-F]*|[0-9]{19,})")
_PAIRS: Final = {"]": "[", "}": "{", ")": "("}

# Functions that look at nothing but their arguments. Others read the service's password file or clock, or evaluate
# text that was not checked; a verdict that could change by itself must not be cached either.
_FUNCTIONS: Final = frozenset(
    (
        "anycompare",
        "allcompare",
        "bool",
        "ceiling",
        "floor",
        "identicalmember",
        "ifthenelse",
        "int",
        "isboolean",
        "iserror",
        "isinteger",
        "islist",
        "isreal",
        "isstring",
        "isundefined",
        "max",
        "member",
        "min",
        "pow",
        "quantize",
        "real",
        "regexp",
        "regexpmember",
        "regexps",
        "round",
        "size",
        "strcat",
        "strcmp",
        "stricmp",
        "string",
        "stringlist_regexpmember",
        "stringlistimember",
        "stringlistmember",
        "stringlistsize",
        "substr",
        "tolower",
        "toupper",
        "versioncmp",
        "versioneq",
        "versionge",
        "versiongt",
        "versionle",
        "versionlt",
    )
)


@dataclass(frozen=True, slots=True)
class Statement:
    """``name = expression``. ``masked`` is the expression with blanks inside its strings, of the same length."""

    name: str
    line: int
    expression: str
    masked: str

    def error(self, what: str, remedy: str = "") -> JobDescriptionError:
        """An error that names line and attribute."""
        return JobDescriptionError(what, where=f"line {self.line}, {self.name}", remedy=remedy)


def statements(text: str) -> tuple[Statement, ...]:
    """Cut a description into its statements, of the bracketed form or the plain one. JobDescriptionError."""
    if len(text) > MAXIMUM_TEXT:
        raise JobDescriptionError(
            f"the job description has {len(text)} characters, {MAXIMUM_TEXT} are the most",
            where="line 1",
            remedy="put data into an input file",
        )
    if "\0" in text:
        raise _at(text, text.index("\0"), "a NUL character in the job description")
    plain, masked = _mask(text)
    start, end = _body(plain, masked)
    return _cut(plain, masked, start, end)


def _at(text: str, position: int, what: str, remedy: str = "") -> JobDescriptionError:
    return JobDescriptionError(what, where=f"line {text.count(chr(10), 0, position) + 1}", remedy=remedy)


def _blank(text: str) -> str:
    return "".join("\n" if character == "\n" else " " for character in text)


def _mask(text: str) -> tuple[str, str]:
    """The text without comments, and the same without the insides of strings; lengths and lines stay."""
    plain: list[str] = []
    masked: list[str] = []
    position = 0
    opened: list[tuple[str, int]] = []
    for token in _TOKEN.finditer(text):
        between = text[position : token.start()]
        found = token.group()
        kind = token.lastgroup
        if kind in ("unclosed", "openended"):
            what = "a string that is not closed on its line" if kind == "unclosed" else "a comment that is not closed"
            raise _at(text, token.start(), what)
        if kind == "quoted":
            raise _at(text, token.start(), "a single quote outside a string", 'write strings in double quotes: "..."')
        if kind == "open":
            opened.append((found, token.start()))
            if len(opened) > MAXIMUM_DEPTH:
                raise _at(text, token.start(), f"brackets nested more than {MAXIMUM_DEPTH} deep")
        if kind == "close" and (not opened or opened.pop()[0] != _PAIRS[found]):
            raise _at(text, token.start(), f"a {found!r} that closes nothing")
        plain += (between, _blank(found) if kind == "comment" else found)
        inside = f'"{" " * (len(found) - 2)}"' if kind == "string" else plain[-1]
        masked += (between, inside)
        position = token.end()
    if opened:
        raise _at(text, opened[-1][1], f"a {opened[-1][0]!r} that is not closed")
    return "".join((*plain, text[position:])), "".join((*masked, text[position:]))


def _body(plain: str, masked: str) -> tuple[int, int]:
    """Where the statements are: all of the text, or what is within its outer brackets."""
    stripped = masked.strip()
    if not stripped.startswith("["):
        return 0, len(masked)
    start = masked.index("[") + 1
    depth = 1
    end = start
    while depth:
        depth += {"[": 1, "]": -1}.get(masked[end], 0)
        end += 1
    if masked[end:].strip():
        at = end + len(masked[end:]) - len(masked[end:].lstrip())
        raise _at(plain, at, "text after the closing bracket", "a description is one [ ... ]")
    return start, end - 1


def _cut(plain: str, masked: str, start: int, end: int) -> tuple[Statement, ...]:
    found: list[Statement] = []
    depth = 0
    begin = start
    for position in range(start, end + 1):
        character = masked[position] if position < end else ";"
        if character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == ";" and depth == 0:
            if masked[begin:position].strip():
                found.append(_statement(plain, masked, begin, position))
            begin = position + 1
    return tuple(found)


def _statement(plain: str, masked: str, begin: int, end: int) -> Statement:
    match = _STATEMENT.match(masked, begin, end)
    first = begin + len(masked[begin:end]) - len(masked[begin:end].lstrip())
    if match is None:
        words = " ".join(plain[first:end].split())
        raise _at(plain, first, f"{_short(words)!r} is not of the form Name = value")
    line = plain.count("\n", 0, first) + 1
    statement = Statement(match[1], line, plain[match.end() : end], masked[match.end() : end])
    following = _NEXT_STATEMENT.search(statement.masked)
    if following is not None and not _inside_brackets(statement.masked[: following.start()]):
        raise statement.error(f"a semicolon is missing before {following[1]!r}")
    if not statement.expression.strip():
        raise statement.error("has no value")
    return statement


def _inside_brackets(masked: str) -> bool:
    return sum(masked.count(o) for o in "[{(") > sum(masked.count(c) for c in "]})")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def nested(statement: Statement) -> tuple[Statement, ...] | None:
    """The statements of a value that is an ad ``[ a = ...; b = ... ]``, in their order; None when it is none."""
    if not statement.masked.lstrip().startswith("["):
        return None
    above = "\n" * (statement.line - 1)  # so that errors count lines from the description's beginning
    plain, masked = above + statement.expression, above + statement.masked
    inside = _cut(plain, masked, *_body(plain, masked))
    names = [entry.name.lower() for entry in inside]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise statement.error(f"gives {inside[position].name} twice")
    return inside


def _tree(statement: Statement) -> classad2.ClassAd:
    misread = _MISREAD.search(statement.masked)
    if misread is not None:
        raise statement.error(f"the number {_short(misread[0])} cannot be used", "write decimal numbers below 10^18")
    try:
        ad = classad2.ClassAd(f"[ value = {statement.expression} ]")
    except (classad2.ClassAdException, ValueError) as error:
        words = _short(" ".join(statement.expression.split()))
        raise statement.error(f"{words} is not a ClassAd expression") from error
    if list(ad) != ["value"]:
        raise statement.error("has more than one value")
    return ad


def plain_value(statement: Statement) -> Value:
    """The value of a statement that must be a constant: text, number, truth value, list or nested ad of these."""
    called = _CALL.search(statement.masked)
    if called is not None:
        raise statement.error(f"calls the function {called[1]!r}", "only Requirements may be computed")
    return _constant(statement, _tree(statement)["value"])


def _constant(statement: Statement, value: object) -> Value:
    # The library's Value (undefined, error) is an int to Python, but not to us.
    if isinstance(value, str | bool | int) and not isinstance(value, classad2.Value):
        return value
    if isinstance(value, float):
        if value in (float("inf"), float("-inf")) or value != value:
            raise statement.error("is not a finite number")
        return value
    if isinstance(value, list):
        return [_constant(statement, element) for element in value]
    if isinstance(value, classad2.ClassAd):
        return {str(name): _constant(statement, value[name]) for name in value}
    words = "undefined" if isinstance(value, classad2.Value) else _short(" ".join(str(value).split()))
    raise statement.error(f"must be a plain value, not {words}", 'text is written in double quotes: "..."')


def boolean_expression(statement: Statement) -> str:
    """The expression of a statement, checked, as the ClassAd library writes it. JobDescriptionError."""
    if len(statement.expression) > MAXIMUM_EXPRESSION:
        raise statement.error(
            f"the expression has {len(statement.expression)} characters, {MAXIMUM_EXPRESSION} are the most"
        )
    for called in _CALL.finditer(statement.masked):
        if called[1].lower() not in _FUNCTIONS:
            raise statement.error(
                f"the function {called[1]!r} may not be used", "functions of their arguments alone may, such as regexp"
            )
    return " ".join(str(_tree(statement).lookup("value")).split("\n")).strip()

"""Where keys are written: for any TOML document the line that is found is the true one."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.site.locate import Keys, Locations, Position

BARE = "abcXYZ019_-"
TRICKY = "a.\"'\\#[]{}=, \té\n😀"


@dataclass
class Document:
    """A TOML text in the making, which knows where it has written what."""

    draw: st.DrawFn
    text: str = ""
    written: dict[Keys, Position] = field(default_factory=dict)
    names: int = 0

    def put(self, *choices: str) -> None:
        self.text += self.draw(st.sampled_from(choices))

    def note(self, keys: Keys) -> None:
        line_start = self.text.rfind("\n") + 1
        self.written.setdefault(keys, Position(self.text.count("\n") + 1, len(self.text) - line_start + 1))

    def name(self) -> str:
        """A new name: a number keeps it apart from all others."""
        self.names += 1
        bare = self.draw(st.booleans())
        letters = self.draw(st.text(BARE if bare else TRICKY.replace("\n", ""), max_size=4))
        return f"{letters}-{self.names}"  # without the hyphen "1" and 1 would be the same as "" and 11

    def put_name(self, name: str) -> None:
        styles = [json.dumps(name), json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")]
        if all(ord(character) <= 0xFFFF for character in name):
            styles = [style.replace("/", "\\u002F") for style in styles]
        else:
            styles = styles[1:]
        if set(name) <= set(BARE):
            styles.append(name)
        if "'" not in name:
            styles.append(f"'{name}'")
        self.put(*styles)

    def header(self, keys: Keys, *, many: bool) -> None:
        self.put("", "  ", "\t")
        self.note(keys)
        self.put("[[" if many else "[")
        for number, step in enumerate(step for step in keys if isinstance(step, str)):
            if number:
                self.put(".", " . ")
            self.put("", " ")
            self.put_name(step)
            self.put("", " ")
        self.put("]]" if many else "]")
        self.end_line()

    def pair(self, table: Keys, depth: int, *, inline: bool = False) -> None:
        keys = table
        for number in range(self.draw(st.integers(1, 3 if depth else 2))):
            if number:
                self.put(".", " .", ". ")
            name = self.name()
            keys = (*keys, name)
            self.note(keys)
            self.put_name(name)
        self.put("=", " = ", "\t=")
        self.value(keys, depth, inline=inline)

    def value(self, keys: Keys, depth: int, *, inline: bool) -> None:
        kind = self.draw(st.sampled_from(["scalar", "string", "long"] + (["list", "table"] if depth else [])))
        if kind == "scalar":
            self.put("1", "-2.5e3", "true", "inf", "1979-05-27 07:32:00Z", "07:32:00", "0xdead_beef", "1979-05-27")
        elif kind == "string":
            plain = self.draw(st.text(TRICKY.replace("\n", "").replace("'", "")))
            self.put(f"'{plain}'", json.dumps(plain, ensure_ascii=False))
        elif kind == "long":
            plain = self.draw(st.text("ab#\n[]=\té", max_size=8))
            self.put(
                f"'''{plain}'''",
                f'"""{plain}"""',
                f'"""\n{plain}\\\n  x"""',
                f'"""{plain}"x""y"""',
                f'"""{plain}\\""""""',
            )
        elif kind == "list":
            self.list(keys, depth - 1)
        else:
            self.table(keys, depth - 1)

    def list(self, keys: Keys, depth: int) -> None:
        self.put("[", "[ ", "[\n", "[ # ]\n  ")
        for number in range(self.draw(st.integers(0, 3))):
            if number:
                self.put(",", " , ", ",\n# , [\n")
            self.note((*keys, number))
            self.value((*keys, number), depth, inline=False)
        self.put("]", "\n]", " # x\n]")

    def table(self, keys: Keys, depth: int) -> None:
        self.put("{", "{ ")
        for number in range(self.draw(st.integers(0, 3))):
            if number:
                self.put(",", " , ")
            self.pair(keys, depth, inline=True)
        self.put("}", " }")

    def end_line(self) -> None:
        self.put("\n", " # [no] = 1\n", "\n\n", "\n# x = '''\n", "\r\n")


@st.composite
def documents(draw: st.DrawFn) -> Document:
    document = Document(draw)
    tables: list[Keys] = [()]
    lengths: dict[Keys, int] = {}
    for _ in range(draw(st.integers(0, 3))):
        document.pair((), 2)
        document.end_line()
    for _ in range(draw(st.integers(0, 5))):
        many: bool = draw(st.booleans())
        keys: Keys
        if many and lengths and draw(st.booleans()):
            keys = draw(st.sampled_from(sorted(lengths, key=str)))
            if any(keys[: len(other)] == other and other != keys for other in lengths):
                continue  # its parent may have gone on to another element
        else:
            keys = (*draw(st.sampled_from(tables)), document.name())
        document.header(keys, many=many)
        table = keys
        if many:
            number = lengths.get(keys, 0)
            lengths[keys] = number + 1
            tables = [one for one in tables if one[: len(keys)] != keys]  # only the latest element can be added to
            table = (*keys, number)
        if many or keys not in tables:
            tables.append(table)
        for _ in range(draw(st.integers(0, 2))):
            document.pair(table, 2)
            document.end_line()
    return document


def every_key(value: object, keys: Keys = ()) -> list[Keys]:
    """Of a parsed document, the keys of tables and the elements of lists alike."""
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [found for step, one in inner for found in ((*keys, step), *every_key(one, (*keys, step)))]


@given(documents())
@settings(max_examples=200, deadline=None)
def test_the_line_found_is_the_true_line(document: Document) -> None:
    parsed = tomllib.loads(document.text)
    locations = Locations(document.text)
    assert {keys: locations.find(keys) for keys in document.written} == document.written
    assert set(locations) == set(every_key(parsed))


@given(st.text(BARE + TRICKY + "[]={},#\n\"'.", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    locations = Locations(text)
    assert locations.find(("a", 0, "b")) >= Position(1, 1)
    assert locations.last_statement.line <= text.count("\n") + 1


@given(st.text("ab.[]={}\n\"' 1,", max_size=40))
@settings(max_examples=300)
def test_whatever_tomllib_reads_is_found(text: str) -> None:
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(Locations(text)) == set(every_key(parsed))


TEXT = '''\
# comment
title = "a [b] # c"
[a]
x = 1
b . "c.d" = { e = [1,
  {f = 2}], g.h = 3 }
[[a.list]]
y = """
z = 1
"""
[[a.list]]
y = 1
[a.list.deep]
z = 2
[late.table]
[late]
w = [ ]
'''


@pytest.mark.parametrize(
    ("keys", "line", "column"),
    [
        (("title",), 2, 1),
        (("a",), 3, 1),
        (("a", "x"), 4, 1),
        (("a", "b"), 5, 1),
        (("a", "b", "c.d"), 5, 5),
        (("a", "b", "c.d", "e", 1, "f"), 6, 4),
        (("a", "b", "c.d", "g", "h"), 6, 15),
        (("a", "list"), 7, 1),
        (("a", "list", 0, "y"), 8, 1),
        (("a", "list", 1), 11, 1),
        (("a", "list", 1, "deep", "z"), 14, 1),
        (("late", "table"), 15, 1),
        (("late",), 16, 1),
        # not written: the nearest that is
        (("a", "list", 1, "deep", "missing"), 13, 1),
        (("late", "w", 3), 17, 1),
        (("nowhere",), 1, 1),
        ((), 1, 1),
    ],
)
def test_an_example(keys: Keys, line: int, column: int) -> None:
    assert Locations(TEXT).find(keys) == Position(line, column)


def test_a_table_that_is_only_passed_through_is_where_it_is_first_passed() -> None:
    assert Locations("[a.b]\n[a.c]\n[x]\ny.z = 1\ny.w = 2").find(("a",)) == Position(1, 1)
    assert Locations("x = 1\na.b = 1\na.c = 1").find(("a",)) == Position(2, 1)


def test_very_deep_lists_are_left_to_their_parent() -> None:
    text = "x = " + "[" * 400 + "]" * 400
    assert Locations(text).find(("x", *([0] * 399))).line == 1


def test_windows_lines_count_once() -> None:
    assert Locations("a = 1\r\n\r\nb = 2\r\n").find(("b",)) == Position(3, 1)


def test_the_last_statement_begun() -> None:
    assert Locations("a = 1\n  b = [\n1,\n").last_statement == Position(2, 3)
    assert Locations("a = 1\n[b\nc").last_statement == Position(2, 1)


@pytest.mark.parametrize("rest", ["x", "[", '"\\x"', "= 1", "b c", 'b = "', "b = ", "b = [1 2", "b = {c = 1 d", "[[b]"])
def test_what_comes_before_a_fault_is_kept(rest: str) -> None:
    locations = Locations(f"a = 1\n{rest}\nlater = 3")
    assert locations.find(("a",)) == Position(1, 1)
    assert locations.last_statement == Position(2, 1)
    assert ("later",) not in set(locations)


def test_nothing_is_read_after_a_value_that_goes_on() -> None:
    assert set(Locations('a = "1" 2\nb = 3')) == {("a",)}

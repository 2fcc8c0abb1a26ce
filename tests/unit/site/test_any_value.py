"""Any TOML value at any key: a clear line, or a site; never anything else."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtide.site.loader import load, problems

FULL = """
[site]
name = "torino"
state = "state"
[service]
listen = "127.0.0.1:8470"
url = "https://x.example.org"
tls = { certificate = "here", key = "here", authority = "here" }
aliec2 = { group = "workers" }
[store]
url = "postgresql+psycopg://u@h/d"
password_file = "here"
[controller]
batch_window = "50 ms"
lease = "10 s"
[queues.jobs]
type = "pilot"
maximum_losses = 3
storage = "jobs"
[clouds.local]
type = "process"
quota = { cores = 8, memory = "16 GiB", machines = 8 }
settle = "1 s"
directory = "machines"
shapes = { small = { cores = 1, memory = "1 GiB", disk = "1 GiB", price = 0.5 } }
[groups.workers]
queue = "jobs"
clouds = ["local"]
shapes = ["small"]
image = "image"
minimum = 0
maximum = 4
policy = { type = "queue", threshold = 1, idle_for = "5 min", jobs_per_worker = 2 }
join_deadline = "10 min"
lease = "10 min"
heartbeat = "10 s"
attributes = { Arch = "X86_64" }
context = { files = ["here"] }
"""
TREE = tomllib.loads(FULL)


def paths_in(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value of a document."""
    if isinstance(value, dict):
        return [path, *(found for key, one in value.items() for found in paths_in(one, (*path, key)))]
    if isinstance(value, list):
        return [path, *(found for number, one in enumerate(value) for found in paths_in(one, (*path, number)))]
    return [path]


def toml(value: object) -> str:
    """A value as TOML writes it, tables inline."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = "".join(one if one.isalnum() else f"\\U{ord(one):08x}" for one in value)
            return f'"{escaped}"'
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(toml(one) for one in value) + "]"
        case _:
            return str(value)


def document(tree: dict[str, Any]) -> str:
    """One key per line at the top, so that the line tells the section."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in tree.items())


words = st.sampled_from(
    [
        "",
        "x",
        "..",
        "~nobody/x",
        "/",
        "here",
        "5 min",
        "2 GiB",
        "auto",
        "fixed",
        "[::1]:0",
        "http://[",
        "sqlite://",
        "\0",
        "\n",
    ]
)
scalars = st.one_of(
    words,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.sampled_from([tomllib.loads("a=1979-05-27T07:32:00Z")["a"], tomllib.loads("a=07:32:00")["a"]]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(words, inner, max_size=2)),
    max_leaves=4,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "here").write_text("x")
    return tmp_path


def test_the_document_is_right_as_it_stands(directory: Path) -> None:
    path = directory / "site.toml"
    for text in (FULL, document(TREE)):
        path.write_text(text, encoding="utf-8")
        assert [str(one) for one in problems(path)] == []


@given(where=st.sampled_from(paths_in(TREE)[1:]), value=values, extra=st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere(directory: Path, where: tuple[str | int, ...], value: object, extra: bool) -> None:
    tree: Any = copy.deepcopy(TREE)
    above: Any = tree
    for step in where[:-1]:
        above = above[step]
    if extra and isinstance(above, dict):
        above[f"{where[-1]}x"] = value
    else:
        above[where[-1]] = value
    path = directory / "site.toml"
    path.write_text(document(tree), encoding="utf-8")
    found = problems(path)
    for one in found:
        line = str(one)
        assert "\n" not in line
        assert one.position is not None
        assert one.what
        assert one.remedy, line
        assert "Input should" not in line
        assert "input should" not in line, "pydantic's own words have come through"
    lines = [one.position.line for one in found if one.position is not None and one.keys]
    assert all(list(tree)[number - 1] == one.keys[0] for number, one in zip(lines, filter_keys(found), strict=True))
    if not found:
        load(path).rules()


def filter_keys(found: list[Any]) -> list[Any]:
    """Those that are about a key."""
    return [one for one in found if one.keys]

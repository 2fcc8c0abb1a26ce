"""docs/reference/commands.md and exit-codes.md say all that the code knows, and nothing more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

from gridtide.cli.exit_codes import ExitCode
from gridtide.cli.main import app

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
COMMON = ("--site", "--url", "--token-file", "--ca", "--json", "--debug", "--help")


def commands() -> Iterator[tuple[str, object]]:
    """Every command with its full name."""
    top = get_command(app)
    for name, command in getattr(top, "commands", {}).items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {part}", each) for part, each in inner.items())


def sections() -> dict[str, str]:
    """Heading -> text of commands.md."""
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    parts = re.split(r"^### `gridtide ([a-z -]+)", text, flags=re.MULTILINE)
    return {name.strip(): body for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def options(command: object) -> set[str]:
    found: set[str] = set()
    for parameter in getattr(command, "params", ()):
        if parameter.param_type_name == "option":
            found.update(word for word in (*parameter.opts, *parameter.secondary_opts) if word.startswith("--"))
    return found


def test_every_command_is_documented_and_no_other() -> None:
    assert set(sections()) == {name for name, _ in commands()}


def test_every_option_is_documented_and_no_other() -> None:
    text = sections()
    for name, command in commands():
        written = set(re.findall(r"`(--[a-z0-9-]+)", text[name]))
        assert written - set(COMMON) == options(command) - set(COMMON), name


def test_the_common_options_are_documented_once() -> None:
    head = (REFERENCE / "commands.md").read_text(encoding="utf-8").split("### ")[0]
    for option in COMMON:
        assert f"`{option}" in head


def test_every_command_takes_json() -> None:
    for name, command in commands():
        assert {"--json", "--debug"} <= options(command), name


def test_every_parameter_has_help() -> None:
    for name, command in commands():
        assert getattr(command, "help", ""), name
        for parameter in getattr(command, "params", ()):
            assert getattr(parameter, "help", ""), f"{name} {parameter.name}"


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (REFERENCE / "exit-codes.md").read_text("utf-8"), flags=re.MULTILINE)
    assert {(int(number), name) for number, name in rows} == {(code.value, code.name) for code in ExitCode}


def test_the_commands_of_the_brief_are_there() -> None:
    assert isinstance(app, typer.Typer)
    wanted = "init up down status workers jobs submit logs cancel drain undrain scale explain plan events check schema"
    assert {*wanted.split(), "version", "wait", "outputs"} <= {name for name, _ in commands()}
